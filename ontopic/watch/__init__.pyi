from .actions import Action as Action
from .actions import ActionStore as ActionStore
from .watcher import Watcher as Watcher
