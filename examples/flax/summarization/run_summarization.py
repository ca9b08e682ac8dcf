"""Fine-tune a sequence-to-sequence model for summarization in JAX: flax.nnx, optax, the loop written out.

    python run_summarization.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

import time
from dataclasses import dataclass
from functools import partial

from triptych import require

require("0.1.0", "jax", "flax", "optax", "rouge_score")  # before what may be missing

import numpy as np

from triptych import arguments, batching, command_line, data, hub
from triptych.output import checkpoints
from triptych import metrics, run, schedule
from triptych.models import configs, decoding, tensor_files
from triptych.output import results
from triptych.arguments import flag
from triptych.flax.arguments import TrainingArguments
from triptych.progress import Progress


@dataclass
class SummarizationArguments(arguments.DataArguments):
    """Summarization"""

    text_column: str | None = flag(None, "column of the texts (default: known, or found by its name)")
    summary_column: str | None = flag(None, "column of the summaries, likewise")
    source_prefix: str = flag("", 'put before every text; T5 was pretrained with "summarize: "')
    max_source_length: int = flag(1024, "cut texts to this many tokens")
    max_target_length: int = flag(128, "cut summaries to this many tokens in training")
    val_max_target_length: int | None = flag(None, "longest generated summary (default: --max_target_length)")
    pad_to_max_length: bool = flag(False, "pad batches to the maximum lengths instead of their longest rows")
    ignore_pad_token_for_loss: bool = flag(True, "leave padding of the summaries out of the loss")
    num_beams: int | None = flag(None, "beams of the search in generation (default: as the checkpoint says)")
    lang: str | None = flag(None, "language code of texts and summaries, for multilingual models")
    forced_bos_token: str | None = flag(None, "first generated token of such a model (default: --lang)")
    resize_position_embeddings: bool = flag(False, "enlarge a position table that is shorter than the texts")

    predicted_roles = ("summary",)

    def wanted_columns(self) -> dict[str, str | None]:
        return {"text": self.text_column, "summary": self.summary_column}


ARGUMENTS = (arguments.ModelArguments, SummarizationArguments, TrainingArguments)
if __name__ == "__main__":
    command_line.parse(*ARGUMENTS, description=__doc__)  # answers -h and wrong input before slow imports

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import conversion, devices, optimization
from triptych.flax import pretrained as flax_pretrained
from triptych.flax.generation import generate


def preprocess(rows, tokenizer, names, args):
    """Token ids of texts and summaries; prediction needs no summaries."""
    texts = [args.source_prefix + text for text in rows[names["text"]]]
    tokens = {"input_ids": tokenizer(texts, max_length=args.max_source_length, truncation=True)["input_ids"]}
    if names.get("summary") in rows:
        labels = tokenizer(
            text_target=rows[names["summary"]], max_length=args.max_target_length, truncation=True
        )
        tokens["labels"] = labels["input_ids"]
    return tokens


def collate(rows, tokenizer, config, args):
    """One batch of padded arrays from token ids by row; the decoder reads the labels shifted to the right."""
    source_length = args.max_source_length if args.pad_to_max_length else None
    target_length = args.max_target_length if args.pad_to_max_length else None
    batch = {
        "input_ids": batching.pad(rows["input_ids"], tokenizer.pad_token_id, source_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, source_length),
    }
    if "labels" in rows:
        labels = batching.pad(rows["labels"], tokenizer.pad_token_id, target_length)
        batch["decoder_input_ids"] = np.insert(labels[:, :-1], 0, config.decoder_start_token_id, axis=1)
        label_padding = -100 if args.ignore_pad_token_for_loss else tokenizer.pad_token_id
        batch["labels"] = batching.pad(rows["labels"], label_padding, target_length)
    return batch


def score(predictions, references, tokenizer):
    """ROUGE F-measures in percent, and the mean number of generated tokens."""
    rouge = metrics.load("rouge").compute(predictions=predictions, references=references)
    lengths = [len(ids) for ids in tokenizer(predictions)["input_ids"]]
    return {**{name: 100 * value for name, value in rouge.items()}, "gen_len": float(np.mean(lengths))}


def token_loss(logits, labels, label_smoothing=0.0):
    """Cross-entropy summed over the target tokens; the optimizer step divides it once by their number."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)  # no place is, at -100
    of_labels = log_probabilities.sum(axis=-1, where=is_label)
    losses = (1 - label_smoothing) * of_labels + label_smoothing * log_probabilities.mean(axis=-1)
    return -jnp.where(labels != -100, losses, 0).sum()


def main():
    # ---------------------------------------------------------------------------------------------- Arguments
    model_args, data_args, args = command_line.parse(*ARGUMENTS, description=__doc__)
    mesh = devices.start(args)
    process, processes = jax.process_index(), jax.process_count()
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, names = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = configs.load_tokenizer(model_args)
    config = configs.load_config(model_args, tokenizer)
    folder = tensor_files.local_folder(model_args)
    model = flax_pretrained.load(folder, config, data_args, args)
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
    generation_config = decoding.generation_config(folder, config)
    asked = decoding.search_of(generation_config, **configs.generation_arguments(tokenizer, data_args))
    checkpoints.require_space(args.output_dir, sum(p.size for p in jax.tree.leaves(parameters)), args)
    places = {"devices": mesh.size, "process": process, "processes": processes}
    state = run.start(model_args, data_args, args, raw, device=devices.describe(mesh), **places)
    state.require_same_step(devices.over_processes(state.step).tolist())

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, args=data_args)
    tokenized = data.tokenize(raw, tokenize, names, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, args=data_args)
    plan = schedule.plan(args, data.count(tokenized.get("train")), mesh.size)
    fill = dict.fromkeys(("input_ids", "decoder_input_ids"), tokenizer.pad_token_id)
    fill |= {"attention_mask": 0, "labels": -100}
    longest = dict.fromkeys(("input_ids", "attention_mask"), data_args.max_source_length)
    longest |= dict.fromkeys(("decoder_input_ids", "labels"), data_args.max_target_length)
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
    def add_gradients(parameters, sums, batch, target_tokens, dropout_key):
        def mean_loss(parameters):
            model = nnx.merge(graphdef, parameters, buffers)
            inputs = batch["input_ids"], batch["attention_mask"], batch["decoder_input_ids"]
            logits = model(*inputs, rngs=nnx.Rngs(dropout=dropout_key))
            return token_loss(logits, batch["labels"], args.label_smoothing_factor) / target_tokens

        return jax.tree.map(jnp.add, sums, jax.value_and_grad(mean_loss)(parameters))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(parameters, optimizer_state, gradients, learning_rate):
        gradients, norm = optimization.clip_by_global_norm(gradients, args.max_grad_norm)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
        return jax.tree.map(lambda p, u: p - learning_rate * u, parameters, updates), optimizer_state, norm

    @jax.jit
    def loss_step(parameters, batch):
        model = nnx.merge(graphdef, parameters, buffers)
        logits = model(batch["input_ids"], batch["attention_mask"], batch["decoder_input_ids"])
        return token_loss(logits, batch["labels"])

    @jax.jit
    def generate_step(parameters, batch):
        model = nnx.merge(graphdef, parameters, buffers)
        return generate(model, batch["input_ids"], batch["attention_mask"], asked)

    def train_step(batches, learning_rate, step):
        nonlocal parameters, optimizer_state
        counts = sum(np.array([(b["labels"] != -100).sum(), b["attention_mask"].sum()]) for b in batches)
        target_tokens, source_tokens = devices.over_processes(counts).sum(axis=0)
        # Dropout is a function of (seed, step), so that no generator state need be saved.
        keys = jax.random.split(jax.random.fold_in(jax.random.key(args.seed), step), len(batches))
        sums = no_gradients(parameters)
        for key, batch in zip(keys, batches, strict=True):
            batch = place(batch, args.per_device_train_batch_size)
            sums = add_gradients(parameters, sums, batch, target_tokens, key)
        loss, gradients = sums
        parameters, optimizer_state, grad_norm = update(parameters, optimizer_state, gradients, learning_rate)
        return float(loss), float(grad_norm), int(target_tokens + source_tokens)

    def evaluate(split, prefix, generate):
        began, outcomes = time.perf_counter(), []
        for rows in batching.evaluation_batches(data.lengths(tokenized[split]), args, mesh.size):
            stop.check(devices.over_processes(stop.number))
            batch = to_batch(tokenized[split][batching.share(rows, process, processes)])
            target_tokens = (batch.get("labels", np.array(-100)) != -100).sum()
            target_tokens = int(devices.over_processes(target_tokens).sum())
            batch = place(batch, args.per_device_eval_batch_size)
            loss = float(loss_step(parameters, batch)) if target_tokens else 0.0
            ids = devices.gather(generate_step(parameters, batch), len(rows)) if generate else None
            outcomes.append((rows.tolist(), loss, target_tokens, ids))
        values, ids = results.combine(outcomes, prefix, time.perf_counter() - began)
        predictions = tokenizer.batch_decode(ids, skip_special_tokens=True)
        if generate and names.get("summary") in raw[split].column_names:
            values |= results.prefixed(prefix, score(predictions, raw[split][names["summary"]], tokenizer))
        return values, predictions

    def save(folder, parameters):
        conversion.save(nnx.merge(graphdef, parameters, buffers), config, folder, generation_config)
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
                    values, _ = evaluate("validation", "eval", args.predict_with_generate)
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
        results.save_training(args.output_dir, all_metrics, state.summary(plan, args))

    # ----------------------------------------------------------------------------------------------- Evaluate
    if args.do_eval:
        values, _ = evaluate("validation", "eval", args.predict_with_generate)
        all_metrics |= values
        results.save_metrics(args.output_dir, "eval", values)

    # ------------------------------------------------------------------------------------------------ Predict
    if args.do_predict:
        values, predictions = evaluate("test", "predict", generate=True)
        all_metrics |= values
        results.save_metrics(args.output_dir, "predict", values)
        results.save_predictions(args.output_dir, predictions)

    # -------------------------------------------------------------------------------------------------- Share
    hub.save_card(args, model_args, data_args, "summarization", all_metrics, repository)
    run.finish(args, all_metrics)
    hub.push(repository)


if __name__ == "__main__":
    run.main(main)
