"""The pages that people read, and the complete examples in them by the file name that they call themselves."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {
    re.search(r"own_\w+\.py", block)[0]: block
    for page in ("CONTRIBUTING.md", "README.md")
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    if "own_" in block
}
