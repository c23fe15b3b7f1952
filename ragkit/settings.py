"""Every setting of the command line, in one object read from ``RAGKIT_*`` variables (and ``.env``).

Library code takes arguments; only the command line and the apps read these.
"""

from __future__ import annotations

from pathlib import Path

import platformdirs
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="RAGKIT_", env_file=".env", extra="ignore")

    model: str = "mini"  # "mini", "mini-base", a model folder, or a Hub id
    store: str = str(Path(platformdirs.user_data_dir("ragkit")) / "store")  # a folder, or the URL of a Qdrant server
    qdrant_api_key: SecretStr | None = None  # for a server only
    llm: str = ""  # the model that words answers, as its server calls it; "" for sentences of the corpus
    llm_url: str = ""  # of any OpenAI-compatible server, such as http://127.0.0.1:8080/v1; "" for api.openai.com
    llm_api_key: SecretStr | None = None
    cache: Path = Path(platformdirs.user_cache_dir("ragkit"))  # the unpacked base weights of "mini"
    passage_tokens: int = 200  # longest passage, in the encoder's tokens
