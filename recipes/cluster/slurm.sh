#!/usr/bin/env bash
# A training on several machines under Slurm, one process a GPU. Set nodes and GPUs, then:
#
#   sbatch recipes/cluster/slurm.sh recipes/ss_flow.ts --data /shared/data --vae /shared/ss_vae/models --output /shared/ss_flow --size published
#
# The output folder must be on a file system that all nodes share. Two minutes before the time limit Slurm sends SIGUSR1: the run writes a checkpoint
# and ends; the job is queued again and goes on from it.
#SBATCH --job-name=espalier
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
srun --kill-on-bad-exit=1 deno run -q -P=train "$@"
status=$?
# 130 says that a signal stopped the run with a checkpoint on the disk.
[ "$status" -eq 130 ] && [ -n "${SLURM_JOB_ID:-}" ] && scontrol requeue "$SLURM_JOB_ID"
exit "$status"
