"use strict";
/* Looks every ten seconds whether there is news, and loads the page again, unless somebody is about to decide or read. */
{
  const mark = document.getElementById("stamp");
  const news = document.getElementById("news");
  const busy = () =>
    document.hidden ||
    mark.dataset.typed ||
    document.querySelector("details[open]") ||
    document.querySelector("main :focus") ||
    String(getSelection()) ||
    [...document.querySelectorAll("input")].some((each) => each.value !== each.defaultValue);
  const look = async () => {
    try {
      const answer = await fetch("stamp", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const changed = (await answer.text()) !== mark.dataset.stamp;
      if (changed && !busy()) location.reload();
      else news.textContent = changed ? "There is news: load the page again to see it." : "";
    } catch {
      news.textContent = "The server that drew this page has ended or fails: python run.py ui starts it.";
    }
  };
  if (mark.dataset.typed) {
    /* drawn as the answer to a form: loading it again would give the form again */
  } else setInterval(look, 10_000);
}
