/* Where errors go. */
#ifndef MLX_ERROR_H
#define MLX_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef void (*mlx_error_handler_func)(const char* msg, void* data);

/* Replaces the handler; the default one prints the message and ends the process. dtor (may be NULL) gets data when
 * another handler takes over. A handler that returns lets the failed call return a non-zero status. */
void mlx_set_error_handler(mlx_error_handler_func handler, void* data, void (*dtor)(void*));

/* Formats the message, adds " at file:line" and calls the handler. */
void _mlx_error(const char* file, const int line, const char* fmt, ...);

#define mlx_error(...) _mlx_error(__FILE__, __LINE__, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
