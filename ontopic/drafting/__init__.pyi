from .draft import Draft as Draft
from .draft import DraftFile as DraftFile
from .enough import Need as Need
from .enough import needs as needs
from .writer import Writer as Writer
