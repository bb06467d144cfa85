// The error handler of the process.
#include "mlx/c/error.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>

namespace {

void print_and_exit(const char* msg, void*) {
  std::fprintf(stderr, "MLX error: %s\n", msg);
  std::exit(-1);
}

struct Handler {
  mlx_error_handler_func call = print_and_exit;
  std::shared_ptr<void> data;
};

std::mutex mutex;
Handler current;

}  // namespace

extern "C" void
mlx_set_error_handler(mlx_error_handler_func handler, void* data, void (*dtor)(void*)) {
  Handler next{handler == nullptr ? print_and_exit : handler, nullptr};
  next.data = dtor == nullptr ? std::shared_ptr<void>(data, [](void*) {})
                              : std::shared_ptr<void>(data, dtor);
  std::lock_guard lock(mutex);
  std::swap(current, next);
}

extern "C" void _mlx_error(const char* file, const int line, const char* fmt, ...) {
  va_list args;
  va_start(args, fmt);
  va_list again;
  va_copy(again, args);
  const int size = std::vsnprintf(nullptr, 0, fmt, args);
  std::string text(size > 0 ? static_cast<size_t>(size) : 0, '\0');
  std::vsnprintf(text.data(), text.size() + 1, fmt, again);
  va_end(again);
  va_end(args);
  text += " at " + std::string(file) + ":" + std::to_string(line);
  Handler handler;
  {
    std::lock_guard lock(mutex);
    handler = current;
  }
  handler.call(text.c_str(), handler.data.get());
}
