"""Stand-ins for sbatch, srun, squeue, sacct, scancel and scontrol: jobs are processes of this machine.

`install(folder)` writes the programs. A job's state is the file `jobs/<id>`: PENDING while `hold` exists, then RUNNING
with its process id, then what became of it.
"""

import sys

PROGRAM = """#!{python}
import os, re, signal, subprocess, sys, time
from pathlib import Path
HOME = Path({home!r})
JOBS = HOME / "jobs"
name, words = Path(sys.argv[0]).name, sys.argv[1:]

def put(job, state):
    temporary = JOBS / f".{{job}}"
    temporary.write_text(state)
    temporary.replace(JOBS / job)

def work(job, script, directives):
    while (HOME / "hold").exists() and (JOBS / job).read_text() == "PENDING":
        time.sleep(0.02)
    if (JOBS / job).read_text() != "PENDING":
        return
    main, _, place = job.partition("_")
    ours = {{"SLURM_JOB_ID": main, "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "node1"}}
    if place:
        ours |= {{"SLURM_ARRAY_JOB_ID": main, "SLURM_ARRAY_TASK_ID": place}}
    with subprocess.Popen(["bash", script], env=os.environ | ours, start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        put(job, f"RUNNING {{process.pid}}")
        code = process.wait()
    if (JOBS / job).read_text() != "CANCELLED":
        put(job, "COMPLETED" if code == 0 else "FAILED")

if name == "sbatch":
    script = next(word for word in words if not word.startswith("-"))
    text = Path(script).read_text()
    directives = dict(re.findall(r"^#SBATCH --([\\w-]+)=(.*)$", text, re.M))
    if directives.get("partition") == "none":
        sys.exit("sbatch: error: invalid partition specified: none\\nsbatch: error: Batch job submission failed")
    with (HOME / "scripts").open("a") as stream:
        stream.write(text)
    JOBS.mkdir(exist_ok=True)
    main = str(100 + len(list(HOME.glob("copy-*"))))
    copy = HOME / f"copy-{{main}}"
    copy.write_text(text)
    array = re.match(r"(\\d+)-(\\d+)", directives.get("array", ""))
    jobs = [f"{{main}}_{{k}}" for k in range(int(array[1]), int(array[2]) + 1)] if array else [main]
    for job in jobs:
        put(job, "PENDING")
    print(f"Submitted batch job {{main}}", flush=True)
    for job in jobs:
        if os.fork() == 0:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            work(job, str(copy), directives)
            os._exit(0)
elif name == "srun":
    while words and words[0].startswith("--"):
        words = words[2 if words[0] in ("--output", "--error") else 1:]
    os.execvp(words[0], words)
elif name in ("squeue", "sacct"):
    states = {{path.name: path.read_text().split()[0] for path in JOBS.glob("[0-9]*")}}
    if name == "squeue":
        print("\\n".join(job for job, state in states.items() if state in ("PENDING", "RUNNING")))
    else:
        print("JobID|State|NodeList")
        print("\\n".join(f"{{job}}|{{state}}|node1" for job, state in states.items()))
elif name == "scancel":
    job = words[-1]
    state, _, process = (JOBS / job).read_text().partition(" ")
    if state in ("PENDING", "RUNNING"):
        put(job, "CANCELLED")
    if process:
        os.killpg(int(process), signal.SIGKILL)
"""


def install(folder):
    """The folder of the programs, to be put on the path; what they remember is in `folder`."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in ("sbatch", "srun", "squeue", "sacct", "scancel"):
        program = programs / name
        program.write_text(PROGRAM.format(python=sys.executable, home=str(folder)))
        program.chmod(0o755)
    return programs
