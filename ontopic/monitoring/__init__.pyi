from .alerts import Alert as Alert
from .alerts import Alerts as Alerts
from .topics import Topics as Topics
from .window import Cut as Cut
from .window import Window as Window
from .window import WindowResult as WindowResult
from .windows import WindowStore as WindowStore
