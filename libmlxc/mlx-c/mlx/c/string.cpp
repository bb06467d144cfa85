// Strings and the version.
#include "mlx/c/string.h"

#include "mlx/c/private/handles.h"
#include "mlx/c/version.h"
#include "mlx/version.h"

using namespace mlxc;

extern "C" mlx_string mlx_string_new(void) {
  return mlx_string{nullptr};
}

extern "C" mlx_string mlx_string_new_data(const char* str) {
  mlx_string result{nullptr};
  guarded([&] { put(result, std::string(str)); });
  return result;
}

extern "C" int mlx_string_set(mlx_string* str, const mlx_string src) {
  return guarded([&] { put(*str, std::string(get(src))); });
}

extern "C" const char* mlx_string_data(mlx_string str) {
  return str.ctx == nullptr ? nullptr : get(str).c_str();
}

extern "C" int mlx_string_free(mlx_string str) {
  return guarded([&] { delete static_cast<std::string*>(str.ctx); });
}

extern "C" int mlx_version(mlx_string* str_) {
  return guarded([&] { put(*str_, std::string(mx::version())); });
}
