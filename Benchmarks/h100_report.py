"""Makes Benchmarks/reports/h100.md of the figures that `h100.py measure` stored."""

import json
import pathlib
import statistics
import string

here = pathlib.Path(__file__).resolve().parent
MISSING = "not measured"


def load(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted(pathlib.Path(folder).glob("*.json"))}


def table(head, rows):
    lines = [head, ["---"] * len(head)] + rows
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def middle(results, read):
    """The median over rounds of what `read` finds in each; None where every round failed."""
    values = [read(result) for result in results if "error" not in result]
    return statistics.median(values) if values else None


def cell(value, form="{:.0f}"):
    return "failed" if value is None else form.format(value)


def absent(results):
    """Whether a program was never measured because SonicMoE was not installed."""
    return bool(results) and all("No module named 'sonicmoe'" in result.get("error", "") for result in results)


def ratio(ours, theirs, form="{:.2f}"):
    return "" if not ours or not theirs else form.format(ours / theirs)


def errors(part):
    """Lines about what failed."""
    found = []
    for figure in part["figures"]:
        rounds = figure.get("results") or {figure.get("program", ""): [figure.get("result", {})]}
        for program, results in rounds.items():
            if absent(results):
                continue
            messages = {result["error"] for result in results if isinstance(result, dict) and "error" in result}
            label = " ".join(str(figure[key]) for key in ("shape", "routing", "batch", "sizes") if key in figure)
            found += [f"- {program}, {label}: {message}" for message in sorted(messages)]
    return "\n\nFailed:\n\n" + "\n".join(found) if found else ""


def shape_text(sizes):
    return ", ".join(map(str, sizes))


def layer(part):
    rows, skewed, memory = [], [], []
    for figure in part["figures"]:
        results = {name: rounds for name, rounds in figure["results"].items()}
        apus = results["apus"]

        def bank(key, name="apus"):
            return middle(results.get(name, []), lambda result: result["banks"][0][key])

        def peer(name, key="expert_tflops"):
            return middle(results.get(name, []), lambda result: result[key])

        def best(name):
            """A peer's speed, and its fastest formulation."""
            names = [result["formulation"] for result in results.get(name, []) if "error" not in result]
            return cell(peer(name)) + (f", {names[0]}" if names else "")

        def sonic(value, form="{:.0f}"):
            rounds = results.get("sonic", [])
            return "not installed" if absent(rounds) else cell(value, form) if rounds else MISSING

        tflops, compiled, fused = bank("expert_tflops"), peer("compiled"), peer("sonic")
        name = f"{figure['shape']} ({shape_text(figure['sizes'])})"
        fullest = middle(apus, lambda result: result["peak_load_to_mean"])
        share = cell(bank("of_floor") and bank("of_floor") * 100, "{:.0f} %")
        if figure["shape"] == "olmoe":
            skewed.append([figure["routing"], cell(fullest, "{:.1f}"), cell(tflops), cell(compiled), sonic(fused),
                           ratio(tflops, compiled), ratio(tflops, fused), share])
        if figure["routing"] != "balanced":
            continue
        gemm = middle(apus, lambda result: result["gemm_only_seconds"] * 1e3)
        copied = middle(apus, lambda result: result["counted_bytes"] / result["copy_bytes_per_second"] * 1e3)
        rows.append([
            name, cell(gemm, "{:.1f}"), cell(copied, "{:.1f}"),
            cell(bank("forward_seconds") and bank("forward_seconds") * 1e3, "{:.1f}") + " + "
            + cell(bank("backward_seconds") and bank("backward_seconds") * 1e3, "{:.1f}"),
            cell(tflops), share, cell(bank("expert_tflops", "apus_master")), best("eager"), best("compiled"),
            sonic(fused), ratio(tflops, compiled), ratio(tflops, fused)])
        extra = peer("sonic", "extra_bytes")
        memory.append([name] + [cell(value and value / 2**30, "{:.2f}") for value in (
            bank("extra_bytes"), bank("extra_bytes", "apus_master"), peer("eager", "extra_bytes"),
            peer("compiled", "extra_bytes"))] + [sonic(extra and extra / 2**30, "{:.2f}")])
    return {
        "layer": table(["shape (T, D, F, E, K)", "dense products, ms", "bytes, ms", "Apus, ms", "Apus TFLOP/s",
                        "of floor", "with f32 gradients", "torch eager", "torch compiled", "SonicMoE",
                        "Apus over compiled", "Apus over SonicMoE"], rows) + errors(part),
        "skewed": table(["routing", "fullest expert over mean", "Apus TFLOP/s", "torch compiled", "SonicMoE",
                         "Apus over compiled", "Apus over SonicMoE", "of floor"], skewed),
        "layer_memory": table(["shape", "Apus", "Apus, f32 gradients", "torch eager", "torch compiled", "SonicMoE"],
                              memory),
    }


def attention(part):
    rows = []
    for figure in part["figures"]:
        theirs = figure["results"]["torch"]

        def apus(form, key):
            return middle(figure["results"][form], lambda result: result["shapes"][0][key])

        def torch(backend, key):
            return middle(theirs, lambda result: result[backend][key])

        pairs = [(apus(form, "forward_tflops"), apus(form, "tflops")) for form in ("apus", "apus_free")] + [
            (torch(name, "forward_tflops"), torch(name, "tflops")) for name in ("flash", "cudnn")]
        best = [max((pair[side] for pair in pairs[2:] if pair[side]), default=None) for side in (0, 1)]
        rows.append([shape_text(figure["sizes"])] + [f"{cell(a)} / {cell(b)}" for a, b in pairs]
                    + [f"{ratio(pair[0], best[0])} / {ratio(pair[1], best[1])}" for pair in pairs[:2]])
    return {"attention": table(["B, heads, S, head width", "Apus, deterministic", "Apus, not", "torch flash",
                                "torch cuDNN", "deterministic over the better", "not, over the better"], rows)
            + errors(part)}


def gemm(part):
    figure, rows = part["figures"][0], []
    for index, sizes in enumerate(figure["sizes"]):
        for place, form in enumerate(("nt", "nn", "tn")):
            def apus(engine):
                return middle(figure["results"]["apus"],
                              lambda result: result["shapes"][3 * index + place][f"{engine}_gflops"] / 1e3)

            torch = middle([result["shapes"][index] for result in figure["results"]["torch"]],
                           lambda result: result[form])
            rows.append([" x ".join(map(str, sizes)), form, cell(apus("cublas")), cell(apus("own")), cell(torch),
                         ratio(apus("cublas"), torch)])
    return {"gemm": table(["M x N x K", "form", "Apus (cuBLASLt)", "own kernels", "torch", "Apus over torch"], rows)
            + errors(part)}


def blocksparse(part):
    rows = []
    for figure in part["figures"]:
        apus, torch = figure["results"]["apus"], figure["results"].get("torch", [])
        good = [result for result in apus if "error" not in result]
        for index, product in enumerate(good[0]["products"] if good else []):
            def ours(key):
                return middle(apus, lambda result: result["products"][index][key])

            batched = middle(torch, lambda result: result["tflops"][index])
            rows.append([f"{figure['shape']}, {figure['routing']}", product["product"],
                         cell(ours("block_sparse_tflops")), cell(ours("grouped_tflops")), cell(ours("dense_tflops")),
                         cell(batched) if torch else "", ratio(ours("block_sparse_tflops"), batched)])
        layers = [middle(apus, lambda result: result[f"{bank}_layer_seconds"] * 1e3)
                  for bank in ("block_sparse", "grouped")]
        rows.append([f"{figure['shape']}, {figure['routing']}", "whole SwiGLU layer, ms", cell(layers[0], "{:.1f}"),
                     cell(layers[1], "{:.1f}"), "", "", ""])
    return {"blocksparse": table(["layer", "product, TFLOP/s", "block-sparse", "grouped", "dense cuBLAS", "torch.bmm",
                                  "block-sparse over bmm"], rows) + errors(part)}


def routing(part):
    figure = part["figures"][0]

    def seconds(program, *keys):
        return middle(figure["results"][program], lambda result: sum(result[key] for key in keys) * 1e6)

    ours = seconds("apus", "all_seconds")
    rows = [["Apus", cell(seconds("apus", "route_seconds")),
             cell(seconds("apus", "gather_seconds", "combine_seconds")), cell(ours), ""]]
    for program, name in (("eager", "one-hot products in PyTorch"), ("compiled", "the same, torch.compile")):
        total = seconds(program, "all_seconds")
        parts = [seconds(program, key) for key in ("route_seconds", "carry_seconds")]
        rows.append([name] + ([cell(value) for value in parts] if program == "eager" else ["", ""])
                    + [cell(total), ratio(total, ours, "{:.1f}")])
    return {"routing": table(["", "router, us", "to rows and back, us", "all, us", "times Apus"], rows) + errors(part)}


def train(part):
    good = [figure for figure in part["figures"] if "error" not in figure["result"]]
    flops = next((figure["result"]["flops_per_token"] for figure in good if figure["program"] == "apus"), None)
    names = {"apus": "Apus, bf16-pure", "compiled": "transformers, torch.compile", "eager": "transformers"}
    rows, seen = [], set()
    for figure in part["figures"]:
        key = (figure["program"], figure["batch"])
        if key in seen:
            continue
        seen.add(key)
        runs = [other["result"] for other in part["figures"] if (other["program"], other["batch"]) == key]
        speed = middle(runs, lambda result: result["tokens_per_second"])
        share = speed and flops and speed * flops / 989e12 * 100
        each = ", ".join(f"{run['median_seconds'] * 1e3:.0f}" for run in runs if "error" not in run)
        peak = middle(runs, lambda result: result["peak_bytes"] / 2**30)
        held = middle(runs, lambda result: (result.get("held_bytes") or result["reserved_bytes"]) / 2**30)
        rows.append([names[figure["program"]], f"{figure['batch']} x 2048", each or "failed", cell(speed, "{:,.0f}"),
                     cell(share, "{:.1f} %"), cell(peak, "{:.1f}"), cell(held, "{:.1f}")])
    return {"train": table(["", "batch", "step, ms, by run", "tokens/s", "MFU of 989", "peak GiB", "held GiB"], rows)
            + errors(part), "flops": cell(flops and flops / 1e9, "{:.2f}")}


def generate(part):
    peer = next((figure["result"] for figure in part["figures"] if figure["program"] == "transformers"), {})
    rows = []
    for figure in part["figures"]:
        if figure["program"] != "apus":
            continue
        result = figure["result"]
        ours = result.get("decode_tokens_per_second")
        theirs = peer.get("decode_tokens_per_second", {}).get(str(figure["batch"]))
        rows.append([figure["batch"], cell(ours), cell(theirs), ratio(ours, theirs, "{:.1f}"),
                     cell(result.get("active_bytes") and result["active_bytes"] / 2**30, "{:.2f}"),
                     cell(result.get("of_bandwidth") and result["of_bandwidth"] * 100, "{:.0f} %")])
    return {"generate": table(["prompts", "Apus tokens/s", "transformers", "times", "weights read a step, GiB",
                               "of memory speed"], rows) + errors(part)}


SECTIONS = {"layer": layer, "attention": attention, "gemm": gemm, "blocksparse": blocksparse, "routing": routing,
            "train": train, "generate": generate}


def machine(parts):
    found = next((part["machine"] for part in parts.values() if part.get("machine")), None)
    libraries = next((part["libraries"] for part in parts.values() if part.get("libraries")), {})
    if not found:
        return "One H100"
    cudnn = found["cudnn"]
    ours = ", ".join(f"{name} {libraries[name]}" for name in ("cuBLASLt", "cuDNN") if libraries.get(name))
    return (f"{found['device']}, {found['memory_bytes'] / 2**30:.0f} GiB; CUDA {found['cuda']}. Apus: {ours or 'the same'}. "
            f"PyTorch {found['torch']}: cuDNN {cudnn // 10000}.{cudnn // 100 % 100}")


def write(folder, out):
    parts = load(folder)
    names = ["layer", "skewed", "layer_memory", "attention", "gemm", "blocksparse", "routing", "train", "flops",
             "generate"]
    values = dict.fromkeys(names, MISSING)
    for name, section in SECTIONS.items():
        if name in parts and parts[name]["figures"]:
            values |= section(parts[name])
    values["machine"] = machine(parts)
    values["rounds"] = min((part["rounds"] for part in parts.values()), default=0)
    text = string.Template((here / "h100_template.md").read_text()).substitute(values)
    pathlib.Path(out).write_text(text)
    print(text)
