/** How much a piece of work computes: the products, convolutions and attention that it asks for, counted and not timed. */
import { observe } from "../../ffi/observer.ts";
import { kernelCost } from "./kernel_cost.ts";

/** Starts counting; what it returns ends that and gives the floating-point operations of all calls between. */
export function countFlops(): () => number {
  let sum = 0;
  const before = observe((name, args, call) => {
    if (!name.startsWith("cuda")) sum += kernelCost(name, args).flops ?? 0;
    if (before) before(name, args, call);
    else call();
  });
  return () => {
    observe(before);
    return sum;
  };
}
