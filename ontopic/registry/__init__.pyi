from .promotions import ModelRegistry as ModelRegistry
from .promotions import Promotion as Promotion
from .promotions import open_registry as open_registry
from .tracking import open_tracking as open_tracking
from .versions import RegisteredModel as RegisteredModel
from .versions import find as find
from .versions import register as register
