// Passkeys: asks the browser's authenticator what the page wants to know, and sends the answer with the page's own form.
"use strict";
(() => {
  const form = document.getElementById("passkey");
  const says = document.getElementById("passkey-says");
  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const spelled = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const read = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));
  const add = (name, buffer) => {
    if (!buffer) return;
    const field = document.createElement("input");
    field.type = "hidden";
    field.name = name;
    field.value = spelled(buffer);
    form.append(field);
  };

  const make = async (options) => {
    options.user.id = bytes(options.user.id);
    options.excludeCredentials = read(options.excludeCredentials);
    const { response } = await navigator.credentials.create({ publicKey: options });
    add("client_data", response.clientDataJSON);
    add("attestation", response.attestationObject);
  };

  const show = async (options) => {
    options.allowCredentials = read(options.allowCredentials);
    const { rawId, response } = await navigator.credentials.get({ publicKey: options });
    add("credential", rawId);
    add("client_data", response.clientDataJSON);
    add("authenticator_data", response.authenticatorData);
    add("signature", response.signature);
    add("user_handle", response.userHandle);
  };

  let busy = false;
  const ask = async () => {
    if (busy) return;
    busy = true;
    says.textContent = "Your browser asks you for it.";
    try {
      const options = JSON.parse(form.dataset.options).publicKey;
      options.challenge = bytes(options.challenge);
      await ("registers" in form.dataset ? make : show)(options);
      form.submit();
    } catch (error) {
      busy = false;
      says.textContent = error.name === "InvalidStateError"
        ? "This device has a passkey of yours already."
        : "Your browser gave no passkey. Try again, or go back and take another way.";
    }
  };

  if (!window.PublicKeyCredential) {
    says.textContent = "This browser knows no passkeys. Go back and take another way.";
    return;
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  // After a refusal somebody decides whether to try again.
  if ("starts" in form.dataset) ask();
})();
