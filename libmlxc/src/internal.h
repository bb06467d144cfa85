// What the shim shares with kernels/: errors and the count of handles. No MLX types.
#pragma once

namespace omlx {

/// Keeps the text for omlx_last_error, in this thread.
void set_error(const char* text);

/// Counts a handle that goes to TypeScript and returns it. Every function that makes a handle ends with it; NULL stays
/// NULL and is not counted.
void* give(void* handle);

}  // namespace omlx
