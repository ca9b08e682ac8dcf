"""Fine-tune a model that classifies or scores texts in JAX: flax.nnx, optax, the loop written out.

    python run_classification.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, accuracy and the scores of each label,
`confusion_matrix.png` and `training_curve.png`. `--task_name mrpc` and the like do a task of GLUE.
"""

import time
from dataclasses import dataclass
from functools import partial

from triptych import require

require("0.1.0", "jax", "flax", "optax", "sklearn")  # before what may be missing

import numpy as np

from triptych import arguments, batching, command_line, data, hub
from triptych.output import checkpoints
from triptych.data import columns
from triptych.data import label_schema
from triptych import metrics, run, schedule
from triptych.models import configs, tensor_files
from triptych.output import results
from triptych.arguments import flag
from triptych.flax.arguments import TrainingArguments
from triptych.progress import Progress


@dataclass
class ClassificationArguments(arguments.LabelArguments):
    """Text classification"""

    task_name: str | None = flag(None, "GLUE task, which says dataset, columns, metrics", tuple(columns.GLUE))
    text_column_names: str | None = flag(None, "column of the texts, or two for pairs: premise,hypothesis")
    max_seq_length: int = flag(128, "cut texts to this many tokens")
    pad_to_max_length: bool = flag(False, "pad batches to --max_seq_length instead of their longest rows")

    def wanted_columns(self) -> dict[str, str | None]:
        return {**columns.texts(self.text_column_names), "label": self.label_column_name}


ARGUMENTS = (arguments.ModelArguments, ClassificationArguments, TrainingArguments)
if __name__ == "__main__":
    command_line.parse(*ARGUMENTS, description=__doc__)  # answers -h and wrong input before slow imports

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import conversion, devices, optimization
from triptych.flax import pretrained as flax_pretrained


def preprocess(rows, tokenizer, names, labels, args):
    """Token ids of texts or pairs of texts, and targets; prediction needs no labels."""
    texts = [rows[names[role]] for role in ("text", "text_pair") if role in names]
    encoded = tokenizer(*texts, max_length=args.max_seq_length, truncation=True)
    tokens = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    if labels.column in rows:
        tokens["labels"] = labels.encode(rows[labels.column])
    return tokens


def collate(rows, tokenizer, config, args):
    """One batch of padded arrays from token ids by row, with types of tokens if the model has them."""
    length = args.max_seq_length if args.pad_to_max_length else None
    batch = {
        "input_ids": batching.pad(rows["input_ids"], tokenizer.pad_token_id, length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, length),
    }
    if "token_type_ids" in configs.input_names(config):
        types = rows.get("token_type_ids", [[0]] * len(rows["input_ids"]))
        batch["token_type_ids"] = batching.pad(types, 0, batch["input_ids"].shape[1])
    if "labels" in rows:
        whole, several = (config.problem_type == kind for kind in (label_schema.SINGLE, label_schema.MULTI))
        labels = np.array(rows["labels"], np.int64 if whole else np.float32)
        batch["labels"] = labels.reshape(-1, config.num_labels) if several else labels
    return batch


def predict(logits, problem_type):
    """Numbers of labels, or 0 and 1 for each of several, and their probabilities; or values."""
    if problem_type == label_schema.REGRESSION:
        return logits[:, 0], None
    if problem_type == label_schema.MULTI:
        return (logits > 0).astype(int), np.exp(-np.logaddexp(0, -logits))
    return logits.argmax(axis=1), np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def score(predictions, references, metric_names):
    """The metrics of those names."""
    found = {}
    for name in metric_names:
        found |= metrics.load(name).compute(predictions=predictions, references=references)
    return found


def target_loss(logits, labels, label_smoothing=0.0):
    """Summed over targets: cross-entropy of a row's label, or of each of several, or the squared error."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        log_probabilities = jax.nn.log_softmax(logits)
        of_labels = jnp.take_along_axis(log_probabilities, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
        losses = (label_smoothing - 1) * of_labels - label_smoothing * log_probabilities.mean(axis=1)
    elif labels.ndim == 1:
        losses = (logits[:, 0] - labels) ** 2
    else:
        smooth = labels * (1 - label_smoothing) + label_smoothing / 2
        losses = jnp.logaddexp(0, logits) - smooth * logits
    return jnp.where(labels != -100, losses, 0).sum()


def main():
    # ---------------------------------------------------------------------------------------------- Arguments
    model_args, data_args, args = command_line.parse(*ARGUMENTS, description=__doc__)
    mesh = devices.start(args)
    process, processes = jax.process_index(), jax.process_count()
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, names = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = configs.load_tokenizer(model_args, ends=False)
    config = configs.load_config(model_args, tokenizer)
    labels = label_schema.settle(config, raw, names.get("label"), data_args, args)
    metric_names = metrics.of_labels(labels.problem_type, data_args.metric_name)
    head = "ForSequenceClassification", data_args.ignore_mismatched_sizes
    model = flax_pretrained.load(tensor_files.local_folder(model_args), config, data_args, args, *head)
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    checkpoints.require_space(args.output_dir, sum(p.size for p in jax.tree.leaves(parameters)), args)
    places = {"devices": mesh.size, "process": process, "processes": processes}
    state = run.start(model_args, data_args, args, raw, device=devices.describe(mesh), **places)
    state.require_same_step(devices.over_processes(state.step).tolist())

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, labels=labels, args=data_args)
    tokenized = data.tokenize(raw, tokenize, names, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, args=data_args)
    plan = schedule.plan(args, data.count(tokenized.get("train")), mesh.size)
    fill = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": 0, "labels": -100}
    longest = dict.fromkeys(configs.input_names(config), data_args.max_seq_length)
    # In few shapes, since for each of them a program is compiled
    shapes = {"longest": longest, "fill": fill, "max_tokens": args.max_tokens_per_batch}
    place = partial(devices.place_batch, mesh=mesh, **shapes)

    # -------------------------------------------------------------------------------------------------- Steps
    optimizer = optimization.optimizer(args)
    parameters = devices.place_parameters(parameters, mesh, args.fsdp)
    optimizer_state = jax.jit(optimizer.init)(parameters)
    stop = run.Stop()

    no_gradients = jax.jit(lambda parameters: (jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters)))

    @partial(jax.jit, donate_argnums=1)
    def add_gradients(parameters, sums, batch, targets, dropout_key):
        def mean_loss(parameters):
            model = nnx.merge(graphdef, parameters, buffers)
            inputs = {name: array for name, array in batch.items() if name != "labels"}
            logits = model(**inputs, rngs=nnx.Rngs(dropout=dropout_key))
            return target_loss(logits, batch["labels"], args.label_smoothing_factor) / targets

        return jax.tree.map(jnp.add, sums, jax.value_and_grad(mean_loss)(parameters))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(parameters, optimizer_state, gradients, learning_rate):
        gradients, norm = optimization.clip_by_global_norm(gradients, args.max_grad_norm)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
        return jax.tree.map(lambda p, u: p - learning_rate * u, parameters, updates), optimizer_state, norm

    @jax.jit
    def logits_step(parameters, inputs):
        return nnx.merge(graphdef, parameters, buffers)(**inputs)

    loss_step = jax.jit(target_loss)

    def train_step(batches, learning_rate, step):
        nonlocal parameters, optimizer_state
        counts = sum(np.array([(b["labels"] != -100).sum(), b["attention_mask"].sum()]) for b in batches)
        targets, tokens = devices.over_processes(counts).sum(axis=0)
        # Dropout is a function of (seed, step), so that no generator state need be saved.
        keys = jax.random.split(jax.random.fold_in(jax.random.key(args.seed), step), len(batches))
        sums = no_gradients(parameters)
        for key, batch in zip(keys, batches, strict=True):
            batch = place(batch, args.per_device_train_batch_size)
            sums = add_gradients(parameters, sums, batch, targets, key)
        loss, gradients = sums
        parameters, optimizer_state, grad_norm = update(parameters, optimizer_state, gradients, learning_rate)
        return float(loss), float(grad_norm), int(tokens)

    def evaluate(split, prefix):
        began, outcomes = time.perf_counter(), []
        for rows in batching.evaluation_batches(data.lengths(tokenized[split]), args, mesh.size):
            stop.check(devices.over_processes(stop.number))
            batch = to_batch(tokenized[split][batching.share(rows, process, processes)])
            targets = (batch.get("labels", np.array(-100)) != -100).sum()
            targets = int(devices.over_processes(targets).sum())
            batch = place(batch, args.per_device_eval_batch_size)
            of_batch = batch.pop("labels", None)
            logits = logits_step(parameters, batch)
            loss = float(loss_step(logits, of_batch)) if targets else 0.0
            outcomes.append((rows.tolist(), loss, targets, devices.gather(logits, len(rows))))
        values, logits = results.combine(outcomes, prefix, time.perf_counter() - began)
        answers = predict(np.array(logits), labels.problem_type)
        if references := labels.of(raw[split]):
            values |= results.prefixed(prefix, score(answers[0], references, metric_names))
        return values, answers

    def save(folder, parameters):
        conversion.save(nnx.merge(graphdef, parameters, buffers), config, folder)
        configs.save_tokenizer(tokenizer, folder)

    def save_checkpoint():
        weights_of_all, state_of_all = devices.whole((parameters, optimizer_state))
        if process == 0:
            with checkpoints.writing(args.output_dir, state.step) as folder:
                save(folder, weights_of_all)
                optimization.save_state(folder, state_of_all)
                state.save(folder)
            checkpoints.rotate(args.output_dir, args.save_total_limit, state.best_step)
            hub.push_checkpoint(repository, state.step)

    # -------------------------------------------------------------------------------------------------- Train
    all_metrics = {}
    if args.do_train:
        if state.checkpoint:
            parameters = flax_pretrained.load_parameters(state.checkpoint, parameters)
            optimizer_state = optimization.load_state(state.checkpoint, optimizer_state)
        steps = batching.step_batches(tokenized["train"], to_batch, args, start=state.step, **places)
        progress = Progress(plan, args, state, quiet=process > 0)
        with stop.after(save_checkpoint), devices.announced_compilation(progress.status):
            while not state.ended(plan, args):
                is_best = False
                if state.evaluation_due(plan):
                    values, _ = evaluate("validation", "eval")
                    progress.add(state.step, values)
                    is_best = state.evaluated(values, args)
                else:
                    rate = state.learning_rate(plan, args)
                    loss, grad_norm, tokens = train_step(next(steps), rate, state.step)
                    state.step += 1
                    progress.step(state.step, loss, rate, grad_norm, tokens)
                stop.check(devices.over_processes(stop.number))
                if plan.saves_after(state.step, is_best) and not state.evaluation_due(plan):
                    save_checkpoint()
        if args.load_best_model_at_end and state.best_step:
            best = checkpoints.of_step(args.output_dir, state.best_step)
            parameters = flax_pretrained.load_parameters(best, parameters)
        all_metrics |= progress.train_metrics(state.step)
        weights_of_all = devices.whole(parameters)
        if process == 0:
            with checkpoints.replacing(args.output_dir) as folder:
                save(folder, weights_of_all)
        results.save_training(args.output_dir, all_metrics, state.summary(plan, args), labels.loss_unit)

    # ----------------------------------------------------------------------------------------------- Evaluate
    if args.do_eval:
        for split, prefix in data.parts(raw, "validation", "eval"):
            values, answers = evaluate(split, prefix)
            all_metrics |= values
            labels.save(args.output_dir, prefix, values, answers, raw[split])

    # ------------------------------------------------------------------------------------------------ Predict
    if args.do_predict:
        for split, prefix in data.parts(raw, "test", "predict"):
            values, answers = evaluate(split, prefix)
            all_metrics |= values
            labels.save(args.output_dir, prefix, values, answers, raw[split])

    # -------------------------------------------------------------------------------------------------- Share
    hub.save_card(args, model_args, data_args, "text-classification", all_metrics, repository)
    run.finish(args, all_metrics)
    hub.push(repository)


if __name__ == "__main__":
    run.main(main)
