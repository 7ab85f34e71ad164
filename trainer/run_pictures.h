#pragma once

#include <filesystem>

#include "trainer/attention_setup.h"

namespace nanoflex {

struct PictureFile {
  const char *name, *title;
};

/// The pictures of masks that a run's folder may hold.
inline constexpr PictureFile kMaskPicture = {"mask.png",
                                             "What each query (down) sees of the keys (across)"};
inline constexpr PictureFile kWindowPicture = {"mask_window.png",
                                               "The same in the layers that have a window"};

/// Writes the run's mask into its folder, for one row of tokens whose documents begin where
/// document_starts [1, T] (bool) says: trainer/mask_picture.h's drawing of batch 0 and head 0, up
/// to 256 pixels wide. The cost is bounded: of long rows some queries of each pixel are looked at.
/// A picture that is there already stays.
void write_mask_pictures(const std::filesystem::path& run, const AttentionSetup& attention,
                         const at::Tensor& document_starts);

/// Of a mask that the run no longer has.
void remove_mask_pictures(const std::filesystem::path& run);

}  // namespace nanoflex
