"""DeCo-Diff: a diffusion model that corrects deviations of latents from those of normal images."""
