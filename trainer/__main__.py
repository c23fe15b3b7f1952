"""``python -m trainer``, for launchers: torchrun -m trainer train ..."""

from trainer.cli import main

main()
