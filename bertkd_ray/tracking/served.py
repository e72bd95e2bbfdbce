"""The student as MLflow serves it: this file is copied beside the student and runs there without this package.

Input: a column `text`, one sentence a row, or a list of them, which counts as so many rows; output: a column
`translation`, empty where the text is missing, empty or white space. It is translated as `generate` of the saved
student does, so with its generation_config.json (beam 5). Not supported: splitting text of several sentences.
"""

from typing import Any

import pandas

BATCH = 32


def make_model() -> Any:
    """An `mlflow.pyfunc.PythonModel`, of the artifact `student`: a `save_pretrained` directory.

    Its configuration names the form of the text that the student has learnt (`text`: raw, moses or paper) and its
    languages (`src_lang`, `tgt_lang`); raw text goes in and comes out whatever the form.
    """
    from mlflow.pyfunc.model import PythonModel

    class ServedStudent(PythonModel):
        """Translates the rows of a table."""

        def load_context(self, context: Any) -> None:
            """Reads the student, onto a GPU where there is one."""
            import torch
            from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

            directory = context.artifacts["student"]
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self.tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
            model = AutoModelForSeq2SeqLM.from_pretrained(directory, trust_remote_code=False)
            self.model = model.eval().to(device)

        def predict(self, context: Any, model_input: pandas.DataFrame, params: Any = None) -> pandas.DataFrame:
            """`text` to `translation`, row for row."""
            import torch
            from mlflow.exceptions import MlflowException

            settings = context.model_config
            is_raw = settings["text"] == "raw"
            if not is_raw:
                from moses import from_raw, to_raw
            rows = list(model_input["text"].explode())
            wrong = [cell for cell in model_input["text"] if isinstance(cell, dict)]
            if wrong := [*wrong, *(row for row in rows if not pandas.api.types.is_scalar(row))]:
                raise MlflowException.invalid_parameter_value(f"text: a row is one sentence, not {wrong[0]!r:.80}")
            texts = ["" if pandas.isna(text) else str(text).strip() for text in rows]
            # Longest first, so that a batch has sentences of about one length.
            order = sorted((i for i, text in enumerate(texts) if text), key=lambda i: -len(texts[i]))
            translations = [""] * len(texts)
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                sources = [texts[i] for i in batch]
                if not is_raw:
                    sources = from_raw(sources, settings["text"], settings["src_lang"])
                inputs = self.tokenizer(sources, return_tensors="pt", padding=True).to(self.model.device)
                with torch.inference_mode():
                    ids = self.model.generate(**inputs)
                lines = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
                if not is_raw:
                    lines = to_raw(lines, settings["text"], settings["tgt_lang"])
                for i, line in zip(batch, lines, strict=True):
                    translations[i] = line
            return pandas.DataFrame({"translation": translations})

    return ServedStudent()


def _serve() -> None:
    from mlflow.models import set_model

    set_model(make_model())


if not __name__.startswith("bertkd_ray."):  # MLflow runs its copy of this file under a name of its own.
    _serve()
