// Ties this process to its parent: a child that nobody can reach any more must not go on computing.
#include "omlxc.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>
#include <unistd.h>

#include "internal.h"

#if defined(__linux__)
#include <sys/prctl.h>
#elif defined(__APPLE__)
#include <sys/event.h>
#include <thread>
#endif

namespace {

[[maybe_unused]] int failed(const char* action) {
  omlx::set_error((std::string(action) + ": " + std::strerror(errno)).c_str());
  return -1;
}

}  // namespace

extern "C" int omlx_die_with_parent(void) {
#if defined(__linux__)
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return failed("prctl");
  return 0;
#elif defined(__APPLE__)
  const int queue = kqueue();
  if (queue < 0) return failed("kqueue");
  struct kevent watch;
  EV_SET(&watch, getppid(), EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_EXIT, 0, nullptr);
  if (kevent(queue, &watch, 1, nullptr, 0, nullptr) != 0) {
    const int result = failed("kevent");
    close(queue);
    return result;
  }
  std::thread([queue] {
    struct kevent seen;
    while (kevent(queue, nullptr, 0, &seen, 1, nullptr) < 0 && errno == EINTR) {
    }
    kill(getpid(), SIGKILL);
  }).detach();
  return 0;
#else
  omlx::set_error("cannot watch the parent on this system");
  return -1;
#endif
}
