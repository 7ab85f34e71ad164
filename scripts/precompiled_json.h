// The same for the folders that read and write JSON, which costs a file half a second.
#pragma once

#include <nlohmann/json.hpp>

#include "scripts/precompiled.h"
