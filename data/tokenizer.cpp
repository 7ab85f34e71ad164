#include "data/tokenizer.h"

#include <ATen/Functions.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <stdexcept>

#include "data/corpus.h"

namespace nanoflex::data {

namespace {

// SentencePiece writes a space as U+2581, so the character itself must go through its bytes.
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

std::vector<int32_t> byte_tokens(const sentencepiece::SentencePieceProcessor& processor) {
  std::vector<int32_t> ids;
  for (const char* piece : {"<0xE2>", "<0x96>", "<0x81>"}) {
    const int id = processor.PieceToId(piece);
    if (!processor.IsByte(id)) return {};
    ids.push_back(id);
  }
  return ids;
}

int64_t bytes_of_piece(const sentencepiece::SentencePieceProcessor& processor, int id) {
  if (processor.IsControl(id) || processor.IsUnknown(id) || processor.IsUnused(id)) return 0;
  if (processor.IsByte(id)) return 1;
  const std::string& piece = processor.IdToPiece(id);
  int64_t bytes = static_cast<int64_t>(piece.size());
  for (size_t at = piece.find(kSpaceMark); at != std::string::npos;
       at = piece.find(kSpaceMark, at + kSpaceMark.size())) {
    bytes -= static_cast<int64_t>(kSpaceMark.size()) - 1;
  }
  return bytes;
}

// Most faults come back as a status; those of the trie inside, an empty piece for one, are thrown.
bool holds_model(const std::string& bytes, sentencepiece::SentencePieceProcessor& processor) {
  try {
    return !bytes.empty() && processor.LoadFromSerializedProto(bytes).ok() &&
           processor.GetPieceSize() > 0;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

Tokenizer::Tokenizer(std::string path,
                     std::unique_ptr<sentencepiece::SentencePieceProcessor> processor)
    : path_(std::move(path)),
      processor_(std::move(processor)),
      space_mark_bytes_(byte_tokens(*processor_)),
      cuts_at_newlines_(newline_stands_alone()) {}

Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path, int64_t vocab_size) {
  const std::string bytes = read_bytes(path);
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  if (!holds_model(bytes, *processor)) {
    throw std::invalid_argument(
        "[data] " + path +
        " is not a SentencePiece model, or is truncated; give a .model file "
        "with --tokenizer, or none to train one on the text");
  }
  if (processor->GetPieceSize() > vocab_size) {
    throw std::invalid_argument(
        "[data] the tokenizer " + path + " has " + std::to_string(processor->GetPieceSize()) +
        " tokens, more than vocab_size " + std::to_string(vocab_size) + "; raise vocab_size");
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(path, std::move(processor)));
}

// True when no piece but "\n" itself holds a newline and text is encoded as it stands at its
// beginning and end: then no merge and no normalisation crosses a newline.
bool Tokenizer::newline_stands_alone() const {
  const int newline = processor_->PieceToId("\n");
  const std::vector<int> just_newline{newline};
  if (processor_->IsUnknown(newline) || processor_->EncodeAsIds("\n") != just_newline) return false;
  for (int id = 0; id < processor_->GetPieceSize(); ++id) {
    if (id != newline && processor_->IdToPiece(id).find('\n') != std::string::npos) return false;
  }
  const std::string line = "  a  b  ";
  const std::vector<int> once = processor_->EncodeAsIds(line);
  std::vector<int> twice = once;
  twice.push_back(newline);
  twice.insert(twice.end(), once.begin(), once.end());
  return processor_->EncodeAsIds(line + "\n" + line) == twice &&
         processor_->DecodeIds(once) == line;
}

// A model may load and still be none, with a word that is a control token for one.
std::string Tokenizer::broken(const std::string& what, const std::string& problem) const {
  return "[data] the tokenizer " + path_ + " cannot " + what + " text: " + problem +
         "; give another with --tokenizer, or none to train one on the text";
}

void Tokenizer::encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<int> part;
  const auto status = processor_->Encode({text.data(), text.size()}, &part);
  if (!status.ok()) throw std::invalid_argument(broken("encode", status.ToString()));
  ids.insert(ids.end(), part.begin(), part.end());
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t mark = space_mark_bytes_.empty() ? std::string_view::npos : text.find(kSpaceMark);
  for (; mark != std::string_view::npos; mark = text.find(kSpaceMark)) {
    if (mark > 0) encode_plain(text.substr(0, mark), ids);
    ids.insert(ids.end(), space_mark_bytes_.begin(), space_mark_bytes_.end());
    text.remove_prefix(mark + kSpaceMark.size());
  }
  if (!text.empty()) encode_plain(text, ids);
  return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= processor_->GetPieceSize()) {
      throw std::invalid_argument("[data] token " + std::to_string(id) +
                                  " is outside the tokenizer's vocabulary of " +
                                  std::to_string(vocab_size()));
    }
  }
  std::string text;
  const auto status = processor_->Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  if (!status.ok()) throw std::invalid_argument(broken("decode", status.ToString()));
  return text;
}

std::vector<std::string_view> Tokenizer::parts(std::string_view text, size_t bytes) const {
  std::vector<std::string_view> parts;
  while (cuts_at_newlines_ && text.size() > bytes) {
    const size_t newline = text.find('\n', bytes);
    if (newline == std::string_view::npos) break;
    parts.push_back(text.substr(0, newline + 1));
    text.remove_prefix(newline + 1);
  }
  if (!text.empty() || parts.empty()) parts.push_back(text);
  return parts;
}

std::optional<int64_t> Tokenizer::bos_id() const {
  const int id = processor_->bos_id();
  return id < 0 ? std::nullopt : std::optional<int64_t>(id);
}

int64_t Tokenizer::vocab_size() const { return processor_->GetPieceSize(); }

at::Tensor Tokenizer::token_bytes() const {
  at::Tensor bytes = at::empty({vocab_size()}, at::kLong);
  int64_t* out = bytes.mutable_data_ptr<int64_t>();
  for (int id = 0; id < processor_->GetPieceSize(); ++id) out[id] = bytes_of_piece(*processor_, id);
  return bytes;
}

}  // namespace nanoflex::data
