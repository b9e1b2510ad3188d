"""The model card of a run folder: what it is, how it was made, how to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shelfwise import __version__
from shelfwise.blend import settled

if TYPE_CHECKING:
    from shelfwise.pipelines.run import Prepared, TrainedRun

_PLAIN_USE = {
    "head": """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer
{load}
inputs = tokenizer("Basmati Rice 5 kg ->:", return_tensors="pt")
print(model(**inputs).logits.argmax().item())  # an index into labels.json
```""",
    "completion": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer
{load}
inputs = tokenizer("Basmati Rice 5 kg ->:", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=16)[0]))  # free text; `shelfwise predict` scores labels
```""",
}


def render(run: TrainedRun, prepared: Prepared) -> str:
    """The card as Markdown."""
    config = run.config
    if config.model == "baseline":
        made = "TF-IDF over words and characters with a linear classifier: the yardstick, and a model of its own."
        use = ""
    else:
        made = (
            f"`{config.model}` (revision `{config.revision or 'none'}`), method `{config.method}`, objective "
            f"`{config.objective}`, {run.steps} steps of {config.training.batch_size} products in {run.seconds:.0f} s"
            f"{_before(run)}."
        )
        use = _plain_use(run)
    split = prepared.splits
    return (
        f"""# Inventory types from product names

{made}

| | |
| --- | --- |
| inventory types | {len(prepared.labels)} |
| products to train on | {len(prepared.train):,} |
| products to choose by | {len(prepared.validation):,} |
| products held out for test | {len(split.test):,} rows |
| split | {split.strategy}, seed {split.seed} |
| what the model reads | {", ".join(config.text_columns)} |
| Shelfwise | {__version__} |

`shelfwise evaluate` measures it on the held-out products, writes the figures here, and the report into `evaluation/`.
`shelfwise predict` classifies new ones. The labels and their order are in `labels.json`.

{_together(run)}{use}""".rstrip()
        + "\n"
    )


def _before(run: TrainedRun) -> str:
    """What went before the labels; empty where nothing did."""
    epochs = run.config.training.pretraining_epochs
    return f", after reading the catalogue's names {epochs:g} times over (no held-out one among them)" if epochs else ""


def _together(run: TrainedRun) -> str:
    """How the run's blend was made, and who answers; empty without one."""
    if run.blend is None:
        return ""
    if settled(run.config.classifier, run.blend, run.folder) == "blend":
        who = "`shelfwise predict` answers with the blend (`--classifier model`: with the language model alone)."
    else:
        who = "`shelfwise predict` answers with the language model alone (`--classifier blend`: with both)."
    return f"## Language model and baseline together\n\n{run.blend.told} {who}\n\n"


def _plain_use(run: TrainedRun) -> str:
    config = run.config
    cls = "AutoModelForSequenceClassification" if config.objective == "head" else "AutoModelForCausalLM"
    if config.method == "full":
        where, load = "transformers", f'model = {cls}.from_pretrained("model")'
    else:
        where = "PEFT"
        extra = ", num_labels=N" if config.objective == "head" else ""
        load = (
            f'from peft import PeftModel\nbase = {cls}.from_pretrained("{config.model}"{extra})\n'
            'model = PeftModel.from_pretrained(base, "adapter")'
        )
    load += '\ntokenizer = AutoTokenizer.from_pretrained("tokenizer")'
    alone = "" if run.blend is None else "This is the language model alone, without the baseline.\n\n"
    return f"## In plain {where}\n\n{alone}" + _PLAIN_USE[config.objective].replace("{load}", load)
