#include "trainer/run_pictures.h"

#include "attention/flex/block_mask.h"
#include "trainer/mask_picture.h"
#include "trainer/run_folder.h"

namespace nanoflex {
namespace {

std::string drawn(const flex::Expression& mask, int64_t T) {
  const flex::BlockMask blocks = flex::make_block_mask(mask, {.T = T, .S = T});
  return png(draw_mask(mask, blocks, {.largest_side = 256, .most_pairs = 1 << 24}));
}

}  // namespace

void write_mask_pictures(const std::filesystem::path& run, const AttentionSetup& attention,
                         const at::Tensor& document_starts) {
  const AttentionChoice choice = attention.on_cpu().bind(document_starts.to(at::kCPU));
  const auto write = [&](const char* name, const flex::Expression& mask) {
    if (std::filesystem::exists(run / name)) return;
    write_file(run / name, drawn(mask, document_starts.size(1)));
  };
  bool all_have_windows = !attention.windows.empty();
  for (size_t layer = 0; layer < attention.windows.size(); ++layer) {
    if (attention.windows[layer]) {
      write(kWindowPicture.name, choice.masks[layer]);
    } else {
      all_have_windows = false;
    }
  }
  if (!all_have_windows) write(kMaskPicture.name, choice.spec.mask);
}

void remove_mask_pictures(const std::filesystem::path& run) {
  for (const PictureFile& picture : {kMaskPicture, kWindowPicture}) {
    std::filesystem::remove(run / picture.name);
  }
}

}  // namespace nanoflex
