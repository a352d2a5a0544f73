/** How much a piece of work computes: the products, convolutions and attention that it asks for, counted and not timed. */
import { observe, type Observer, observer } from "../../ffi/observer.ts";
import { kernelCost } from "./kernel_cost.ts";

/** Who counts, and whether it stands before somebody else who sees the calls. */
let counting: { sum: number; look?: Observer; alone: boolean } | undefined;

/** The floating-point operations of one call. */
export function flopsOf(name: string, args: readonly unknown[]): number {
  return name.startsWith("cuda") ? 0 : kernelCost(name, args).flops ?? 0;
}

/** Starts counting; what it returns ends that and gives the floating-point operations of all calls between. */
export function countFlops(): () => number {
  const before = observer, outer = counting, mine = { sum: 0, look: undefined as Observer | undefined, alone: before === undefined };
  counting = mine;
  observe(
    mine.look = (name, args, call) => {
      mine.sum += flopsOf(name, args);
      if (before) before(name, args, call);
      else call();
    },
  );
  return () => {
    observe(before);
    if (counting === mine) counting = outer;
    return mine.sum;
  };
}

/** Counts operations of calls that nobody sees. */
export function addFlops(flops: number): void {
  if (counting) counting.sum += flops;
}

/** Whether somebody sees the calls who does more than count operations. */
export function isWatched(): boolean {
  return observer !== undefined && !(counting?.alone && observer === counting.look);
}
