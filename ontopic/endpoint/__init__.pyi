from .account import Account as Account
from .endpoint import Endpoint as Endpoint
from .replies import Prompt as Prompt
from .replies import Reply as Reply
