from .tables import Tables as Tables
from .whole_file import check_writable as check_writable
from .whole_file import folder_sha256 as folder_sha256
from .workspace import Workspace as Workspace
from .workspace import open_workspace as open_workspace
