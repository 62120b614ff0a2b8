document.getElementById("when").textContent = "Loaded at " + new Date().toLocaleTimeString() + ".";
