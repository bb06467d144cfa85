/* Switches of MLX's graph compiler. */
#ifndef MLX_COMPILE_H
#define MLX_COMPILE_H

#ifdef __cplusplus
extern "C" {
#endif

int mlx_disable_compile(void);
int mlx_enable_compile(void);

#ifdef __cplusplus
}
#endif

#endif
