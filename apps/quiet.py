"""Gradio, told before it is imported to send nothing anywhere and to keep what is uploaded in a folder of this process
alone, which ends with it. The other modules take it from here."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="ragkit-app-")
atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

import gradio as gr  # noqa: E402
from gradio import themes  # noqa: E402
from gradio.events import api  # noqa: E402

__all__ = ["api", "gr", "themes"]
