// Text -> documents -> tokens -> cached shards. Called by open_dataset.
#pragma once

#include "data/dataset.h"

namespace nanoflex::data {

// The documents that `options.data` names, in a fixed order.
std::vector<std::string> read_text_documents(const DatasetOptions& options);

// Whether a document is held out for validation: 5 % are, by their content alone.
bool is_held_out(const std::string& document);

// open_dataset for data that is text.
Dataset open_text(const DatasetOptions& options);

}  // namespace nanoflex::data
