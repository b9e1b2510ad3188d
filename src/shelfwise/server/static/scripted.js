// What works only with scripts is shown only with them.
document.documentElement.classList.add("scripted");
