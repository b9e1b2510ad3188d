"""Language models: the only folder that knows torch, transformers, PEFT and bitsandbytes."""
