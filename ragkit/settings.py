"""Every setting of the command line, in one object read from ``RAGKIT_*`` variables (and ``.env``).

Library code takes arguments; only the command line and the apps read these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from ragkit.limits import Limits


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="RAGKIT_", env_file=".env", extra="ignore", env_nested_delimiter="_", env_nested_max_split=1
    )

    model: str = "mini"  # "mini", "mini-base", a model folder, or a Hub id
    store: str = str(Path(platformdirs.user_data_dir("ragkit")) / "store")  # a folder, or the URL of a Qdrant server
    qdrant_api_key: SecretStr | None = None  # for a server only
    cache: Path = Path(platformdirs.user_cache_dir("ragkit"))  # the unpacked base weights of "mini"
    passage_tokens: int = 200  # longest passage, in the encoder's tokens
    parser: Literal["light", "docling"] = "light"  # of pdf, docx, pptx, html; docling needs the extra of that name
    limits: Limits = Limits()  # what one file may cost: RAGKIT_LIMITS_PAGES is limits.pages
