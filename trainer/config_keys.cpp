#include <algorithm>

#include "attention/registry.h"
#include "trainer/config.h"

namespace nanoflex {
namespace {

std::vector<std::string> backend_choices() {
  std::vector<std::string> choices = {"auto"};
  for (const std::string& name : backend_names()) choices.push_back(name);
  return choices;
}

constexpr double kMaxCount = 1e9;

}  // namespace

std::string Key::flag() const {
  std::string text = name;
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

const std::vector<Key>& config_keys() {
  static const std::vector<Key> keys = {
      {"model", "n_layer", &Config::n_layer, "layers", 1, 10000},
      {"model", "n_head", &Config::n_head, "query heads", 1, 10000},
      {"model", "n_kv_head", &Config::n_kv_head, "key/value heads; divides n_head", 1, 10000},
      {"model", "n_embd", &Config::n_embd, "width; divisible by n_head", 1, 1e6},
      {"model", "sequence_len", &Config::sequence_len, "tokens of a row (T)", 1, kMaxCount},
      {"model", "vocab_size", &Config::vocab_size, "rows of embedding and head", 2, kMaxCount},
      {"model", "init_from", &Config::init_from, "start from this .safetensors file"},
      {"attention", "attention", &Config::attention, "backend; auto: the fastest that can", 0, 0,
       backend_choices()},
      {"attention", "mask", &Config::mask,
       "who attends to whom, over b, h, q, kv and names such as causal, window(n), document; auto: "
       "causal, and causal & document with flex"},
      {"attention", "score", &Config::score,
       "how a scaled score changes, such as softcap(20) or score + slope[h] * (kv - q)"},
      {"attention", "window_pattern", &Config::window_pattern,
       "L or S for each layer, repeated, such as SSSL: S layers see window_size keys back"},
      {"attention", "window_size", &Config::window_size, "of S layers; null: sequence_len / 2", 0,
       kMaxCount},
      {"attention", "learned_tensors", &Config::learned_tensors,
       "tensors of the score that are trained, such as slope, bias; sizes are what it reads"},
      {"attention", "attention_tensors", &Config::attention_tensors,
       ".safetensors file with tensors that mask and score read by name"},
      {"data", "data", &Config::data,
       "text file, folder, .jsonl or .bin shards; shakespeare: the default text"},
      {"data", "val_data", &Config::val_data,
       "validation shards, beside .bin shards; else 5 % are held out"},
      {"data", "bos_id", &Config::bos_id,
       "token that begins a document; else the tokenizer's, or the first token of .bin shards", 0,
       kMaxCount},
      {"data", "tokenizer", &Config::tokenizer, "SentencePiece .model; else one is trained"},
      {"data", "tokenizer_vocab_size", &Config::tokenizer_vocab_size,
       "pieces of a tokenizer trained here; null: 8192, or vocab_size if that is less", 300,
       kMaxCount},
      {"data",
       "packing",
       &Config::packing,
       "stream: documents joined end to end; best_fit: rows begin with BOS",
       0,
       0,
       {"stream", "best_fit"}},
      {"training", "batch_size", &Config::batch_size, "rows of a step (B)", 1, kMaxCount},
      {"training", "device_batch_size", &Config::device_batch_size,
       "rows at once, gradients summed; divides batch_size; null: all", 1, kMaxCount},
      {"training", "learning_rate", &Config::learning_rate, "sets the three rates below", 0, 1e6},
      {"training", "matrix_lr", &Config::matrix_lr, "Muon, for the matrices of the blocks", 0, 1e6},
      {"training", "embedding_lr", &Config::embedding_lr,
       "AdamW, for the embedding; times sqrt(768 / n_embd)", 0, 1e6},
      {"training", "unembedding_lr", &Config::unembedding_lr,
       "AdamW, for the head; times sqrt(768 / n_embd)", 0, 1e6},
      {"training", "lr_warmup_steps", &Config::lr_warmup_steps,
       "steps over which the rates rise from 0", 0, kMaxCount},
      {"training", "lr_warmdown_steps", &Config::lr_warmdown_steps,
       "last steps, over which the rates fall to 0", 0, kMaxCount},
      {"training", "grad_clip", &Config::grad_clip, "largest gradient norm; 0: any", 0, 1e30},
      {"training", "z_loss", &Config::z_loss,
       "of the squared logsumexp, added to each loss, such as 1e-4; 0: none", 0, 0.03},
      {"budget", "target_flops", &Config::target_flops, "FLOPs to spend", 1, 1e30},
      {"budget", "max_steps", &Config::max_steps, "steps to take", 1, kMaxCount},
      {"budget", "max_seconds", &Config::max_seconds, "seconds to train", 0, 1e9},
      {"budget", "warmup_steps", &Config::warmup_steps,
       "first steps that the timing leaves out (no learning-rate warm-up)", 0, kMaxCount},
      {"evaluation", "val_interval", &Config::val_interval,
       "steps between validations; 0: at the end only", 0, kMaxCount},
      {"evaluation", "val_tokens", &Config::val_tokens, "tokens of a validation; 0: none", 0, 1e15},
      {"machine", "device", &Config::device, "auto, cpu, cuda or cuda:N"},
      {"machine",
       "dtype",
       &Config::dtype,
       "activations; auto: bfloat16 where it is fast",
       0,
       0,
       {"auto", "float32", "bfloat16"}},
      {"machine",
       "tf32",
       &Config::tf32,
       "a GPU's float32 products, attention's too, read 10 bits of mantissa: faster, less exact",
       0,
       0,
       {"off", "on"}},
      {"machine",
       "graph",
       &Config::graph,
       "a GPU's steps are recorded once and replayed; off: launched kernel by kernel",
       0,
       0,
       {"on", "off"}},
      {"machine", "threads", &Config::threads, "CPU threads; 0: one a core", 0, 4096},
      {"machine", "seed", &Config::seed, "for weights", 0, 9e15},
      {"output", "run_id", &Config::run_id, "name of the run; else YYYYMMDD_HHMMSS"},
      {"output", "runs_dir", &Config::runs_dir, "folder that holds the runs"},
      {"output", "log_interval", &Config::log_interval, "steps between printed lines", 1,
       kMaxCount},
      {"output",
       "progress",
       &Config::progress,
       "text: a bar on a terminal, else lines; json: lines as in metrics.jsonl; none",
       0,
       0,
       {"text", "json", "none"}},
      {"output", "checkpoint_interval", &Config::checkpoint_interval,
       "steps between checkpoints; 0: at the end only", 0, kMaxCount},
      {"output", "profile", &Config::profile,
       "steps after the warm-up to record for profile.md and trace.json; not timed", 0, 100},
  };
  return keys;
}

}  // namespace nanoflex
