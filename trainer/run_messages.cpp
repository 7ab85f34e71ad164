#include "trainer/run_messages.h"

#include <sstream>

#include "trainer/checkpoint.h"
#include "trainer/progress.h"
#include "trainer/text.h"

namespace nanoflex {

std::string announcement(const std::string& run_id, int64_t parameters, const Budget& budget,
                         const AttentionSetup& attention, const std::string& place) {
  std::ostringstream line;
  line << "run " << run_id << ": " << short_number(static_cast<double>(parameters))
       << "parameters, " << budget.flops_per_token << " FLOPs/token, ";
  if (budget.steps) line << *budget.steps << " steps of ";
  line << budget.tokens_per_step << " tokens, " << attention.backend << " attention ("
       << flex::to_text(attention.mask)
       << (attention.score.defined() ? "; " + flex::to_text(attention.score) : "") << "), "
       << place;
  return line.str();
}

std::string last_checkpoint(const std::filesystem::path& run, int64_t step) {
  if (step == 0) return "last good checkpoint: none (--checkpoint-interval makes them)";
  return "last good checkpoint: " + checkpoint_folder(run, step).string();
}

std::string shortage_message(int64_t step, const std::string& shortage, const Config& config,
                             const std::string& last_checkpoint) {
  std::ostringstream text;
  text << "[train] step " << step << ": " << shortage << "; lower --device-batch-size, is "
       << *config.device_batch_size << ", --sequence-len, is " << config.sequence_len
       << ", or the model (n_embd " << config.n_embd << ", n_layer " << config.n_layer
       << ", vocab_size " << config.vocab_size << "); " << last_checkpoint;
  return text.str();
}

std::string not_finite_message(int64_t step, const std::string& what,
                               const std::string& last_checkpoint) {
  std::ostringstream text;
  text << "[train] step " << step << ": " << what << "; " << last_checkpoint
       << "; try a lower --learning-rate, --grad-clip 1 or --lr-warmup-steps 10";
  return text.str();
}

}  // namespace nanoflex
