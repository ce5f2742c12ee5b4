"""open_clip models behind one adapter with prompt slots."""

import warnings

# Of tqdm, which open_clip imports, in a notebook without ipywidgets: a plain bar serves as well.
warnings.filterwarnings("ignore", message="IProgress not found")
