/* Evaluation of graphs. */
#ifndef MLX_TRANSFORMS_H
#define MLX_TRANSFORMS_H

#include "mlx/c/vector.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Starts the work and returns. */
int mlx_async_eval(const mlx_vector_array outputs);
/* Returns when the outputs can be read. */
int mlx_eval(const mlx_vector_array outputs);

#ifdef __cplusplus
}
#endif

#endif
