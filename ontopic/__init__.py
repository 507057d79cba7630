import logging

# PEFT imports bitsandbytes, which on some CPUs complains at once that it has nothing to fetch a faster kernel with.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
