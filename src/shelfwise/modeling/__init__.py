"""Language models: the only folder that knows torch, transformers, PEFT and bitsandbytes."""

import logging

# At import bitsandbytes warns that an optional package, which would download kernels, is missing; torchao 0.17 warns
# of each kernel that it holds for another Python or GPU, and makes torch warn of its enums.
for _library in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    logging.getLogger(_library).setLevel(logging.ERROR)
