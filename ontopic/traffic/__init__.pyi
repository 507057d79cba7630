from .asking import ask_all as ask_all
from .asking import ask_at_rate as ask_at_rate
from .files import export_traffic as export_traffic
from .files import import_traffic as import_traffic
from .redaction import redact as redact
from .spool import Spool as Spool
from .store import TrafficStore as TrafficStore
from .summary import TrafficSummary as TrafficSummary
