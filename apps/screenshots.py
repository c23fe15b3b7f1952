"""``make screenshots``: the pictures of the README, taken of the running app in Debian's Chromium.

Needs what ``make demo`` has indexed, and letters for its languages (Debian's fonts-noto-core and
fonts-noto-cjk). Each picture is a page at work, with a real question; none is edited.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from apps.running import running

HERE = Path(__file__).parent
OUT = HERE / "screenshots"
CHROMIUM = "/usr/bin/chromium"
TRAM = "1月の平日、ノースモールから1番の路面電車に乗りたいのですが、終電は何時ですか。"
SIREN = "수요일 정오에 사이렌이 15초쯤 울렸는데 대피해야 하나요?"
BIN = "كم يدفع ساكن شقة عادية هذا العام عن كل كيلوواط ساعة من تدفئة الحي؟"
WAIT = 300_000  # milliseconds: a survey of the corpus takes its time


def opened(browser: Browser, url: str, language: str, width: int, height: int, dark: bool = False) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", device_scale_factor=1.5
    )
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.goto(f"{url}/?lang={language}")
    page.wait_for_selector("#rk-language option:checked", state="attached")
    return page


def turn_to(page: Page, number: int) -> None:
    page.get_by_role("tab").nth(number).click()


def take(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(800)
    page.screenshot(path=OUT / f"{name}.png")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with running("--corpus", "selvara") as app, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = opened(browser, app.url, "en", 1100, 900)
        page.fill("#rk-search-question textarea", TRAM)
        page.click("#rk-search-go")
        page.wait_for_selector("#rk-search-results mark")
        take(page, "search")

        page = opened(browser, app.url, "ar", 420, 860)
        page.fill("#rk-search-question textarea", BIN)
        page.click("#rk-search-go")
        page.wait_for_selector("#rk-search-results mark")
        page.locator("#rk-search-results").evaluate("e => e.scrollIntoView()")
        take(page, "right-to-left")

        page = opened(browser, app.url, "en", 1100, 900)
        turn_to(page, 1)
        page.fill("#rk-compare-question textarea", SIREN)
        page.click("#rk-compare-go")
        page.wait_for_selector(".rk-moved")
        page.locator("#rk-compare-results").evaluate("e => e.scrollIntoView()")
        take(page, "compare")

        page = opened(browser, app.url, "en", 1100, 700, dark=True)
        turn_to(page, 2)
        page.fill("#rk-ask-question textarea", TRAM)
        page.click("#rk-ask-go")
        page.click("#rk-ask-answer .rk-cite")
        page.locator("#rk-ask-question").evaluate("e => e.scrollIntoView()")
        take(page, "ask")

        page = opened(browser, app.url, "en", 1100, 900)
        turn_to(page, 3)
        page.click("#rk-languages-go")
        page.wait_for_selector(".rk-map svg[role=img]")
        page.locator(".rk-heatmap").evaluate("e => e.scrollIntoView()")
        take(page, "languages")
        page.locator(".rk-map").evaluate("e => e.scrollIntoView()")
        take(page, "map")
        browser.close()


if __name__ == "__main__":
    main()
