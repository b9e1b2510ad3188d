"""Language models: the only folder that knows torch, transformers, PEFT and bitsandbytes."""

import logging

# At import bitsandbytes warns that an optional package, which would download kernels, is missing.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
