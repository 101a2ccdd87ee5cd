// Unfold's toggles of the sidebar and of the account's menu are spans that hear clicks alone: no key reaches them, and
// no screen reader names them. Here they become buttons. A script, because templates of our own in their place would
// have to follow every upgrade of Unfold; where one makes real buttons of them, this finds nothing to do.
document.addEventListener("DOMContentLoaded", () => {
  makeButtons("sidebarMobileOpen", "Menu");
  makeButtons("sidebarDesktopOpen", "Menu");
  makeButtons("openUserLinks", "Account");

  /** `state`: the variable of Unfold's that a click turns over. */
  function makeButtons(state, name) {
    const toggles = [...document.querySelectorAll(`:is(span, div)[x-on\\:click*="${state} = !${state}"]`)];
    for (const toggle of toggles) {
      toggle.setAttribute("role", "button");
      toggle.setAttribute("tabindex", "0");
      toggle.setAttribute("x-bind:aria-expanded", state);
      toggle.setAttribute("aria-label", name);
      toggle.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        toggle.click();
        // On a phone the open sidebar covers the toggle that opened it, and has one of its own, which comes first. In a
        // microtask: after Alpine's, which shows and hides, and before another key can come.
        queueMicrotask(() => toggles.find((one) => one.checkVisibility()).focus());
      });
    }
  }
});
