// Runs before anything else in the page: what the server knows of the visitor, and what no component does.
(() => {
  const facts = __FACTS__;
  window.ragkitLanguage = facts.language;
  // Gradio translates labels into navigator.language, if it knows that language itself; the visitor may have chosen
  // another. Ours are put where it looks: for one that it does not know, in the place of English.
  const known = {zh: 'zh-CN', am: 'en'}[facts.language] || facts.language;
  Object.defineProperty(navigator, 'language', {get: () => known});
  Object.defineProperty(navigator, 'languages', {get: () => [known]});
  let config;
  Object.defineProperty(window, 'gradio_config', {
    get: () => config,
    set: value => {
      const said = value.i18n_translations;
      config = {...value, i18n_translations: {...said, [known]: said[facts.language]}};
    },
  });

  const root = document.documentElement;
  const dress = () => {
    if (root.dir !== facts.direction) root.dir = facts.direction;
    if (root.lang !== facts.language) root.lang = facts.language;
    // Gradio writes dir="ltr" on every block, and names its upload button otherwise than the button reads.
    for (const block of document.querySelectorAll(`:is(.block, .prose)[dir]:not([dir=${facts.direction}])`)) {
      block.dir = facts.direction;
    }
    for (const button of document.querySelectorAll('.upload-container[aria-label]')) button.removeAttribute('aria-label');
    for (const field of document.querySelectorAll('.rk-auto :is(input, textarea), .gallery-item')) field.dir = 'auto';
    for (const place of document.querySelectorAll('[data-rk-say]')) {
      const words = facts.said[place.dataset.rkSay];
      if (place.textContent !== words) place.textContent = words;
    }
    const select = document.querySelector('#rk-language');
    if (select && !select.dataset.rkSet) { select.value = facts.language; select.dataset.rkSet = '1'; }
  };
  const remembered = localStorage.getItem('ragkit-dark');
  document.addEventListener('DOMContentLoaded', () => {
    let waiting = false;
    const soon = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; dress(); });
    };
    new MutationObserver(soon).observe(document.body, {childList: true, subtree: true});
    soon();
  });
  window.addEventListener('load', () => {
    if (remembered !== null) document.body.classList.toggle('dark', remembered === '1');
  });

  document.addEventListener('change', event => {
    if (event.target.id !== 'rk-language') return;
    const address = new URL(location.href);
    address.searchParams.set('lang', event.target.value);
    location.assign(address);
  });
  document.addEventListener('click', event => {
    if (event.target.closest('#rk-dark')) {
      const dark = document.body.classList.toggle('dark');
      localStorage.setItem('ragkit-dark', dark ? '1' : '0');
    }
    const cited = event.target.closest('[data-rk-source]');
    if (!cited) return;
    event.preventDefault();
    const source = document.getElementById('rk-source-' + cited.dataset.rkSource);
    if (!source) return;
    for (const other of document.querySelectorAll('.rk-shown')) other.classList.remove('rk-shown');
    source.classList.add('rk-shown');
    source.tabIndex = -1;
    source.focus({preventScroll: true});
    source.scrollIntoView({block: 'center', behavior: 'smooth'});
  });
})();
