// Refreshes that do not overlap.

/** A function that runs `work`, one at a time: calls during a run make it run once more after, so that what has
 * changed in the meantime is shown, and an answer that comes late does not replace a newer one. */
export function oneAtATime(work) {
  let running = null;
  let again = false;
  return () => {
    again = true;
    running ??= (async () => {
      try {
        while (again) {
          again = false;
          await work();
        }
      } finally {
        running = null;
      }
    })();
    return running;
  };
}
