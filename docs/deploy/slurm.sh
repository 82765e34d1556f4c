#!/usr/bin/env bash
# Workers of one store as a SLURM array. Change the lines that end in "# CHANGE", then:
#
#   aesearch run --detach --dataset mnist    # anywhere, with the same AESEARCH_STORAGE
#   sbatch slurm.sh
#
# Four workers at a time: when the time of one is up, the next of the array takes its place and
# goes on with its work. When everything is finished, the rest of the array ends at once.
#SBATCH --job-name=aesearch
#SBATCH --array=1-40%4
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
#SBATCH --output=aesearch-%A-%a.log
#SBATCH --open-mode=append
##SBATCH --gres=gpu:1                                                     # CHANGE: one # for GPUs
set -euo pipefail

export AESEARCH_STORAGE=postgresql://me@database.example.org/aesearch     # CHANGE
export AESEARCH_PASSWORD_FILE="$HOME/.config/aesearch/password"           # CHANGE (chmod 600)
source "$HOME/aesearch/.venv/bin/activate"                                # CHANGE

# exec: SLURM's signals reach the worker itself, which then gives its work back.
exec aesearch worker --exit-when-idle
