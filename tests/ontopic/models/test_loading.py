from __future__ import annotations

import subprocess
import sys

from loopback import ROOT


def test_importing_the_models_leaves_the_progress_bars_of_transformers_alone() -> None:
    code = (
        "import ontopic.models.loading, ontopic.models.sentence_encoder\n"
        "from transformers.utils.logging import is_progress_bar_enabled\n"
        "assert is_progress_bar_enabled()\n"
        "ontopic.models.loading.hide_progress_bars()\n"
        "assert not is_progress_bar_enabled()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
