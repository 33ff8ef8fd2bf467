"""Both arrays cycle by cycle, moving real data: what the latency models are held against.

Nothing here knows the models' equations.  Each component is a small machine that does at most one thing a cycle, FIFOs
of limited depth lie between them, and a component waits where its input is empty or its output is full.  What comes
out is what the machines wrote, so that a wrong address, a buffer that is read too early or a lost word shows as a wrong
result.

    settings            what can be set, and what a run returns
    gemm_array          Barista's tiled products (thesis, chapter 4): `simulate_gemm`
    conv_array          FPGPT's convolutions (chapter 5, appendix A): `simulate_conv`
    workloads           a whole pass of a convolution on either, with its result checked
    conv_layout         where words lie, and in which order they are wanted
    fifo, memory        what both share: FIFOs, bursts with latency
    inp_side, kern_side, mesh, out_side     FPGPT's components
    conv_machine, gemm_machine              what happens in a cycle
    compiled            the one place that needs Numba
"""
