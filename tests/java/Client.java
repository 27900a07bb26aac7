// A manager in Java, on the JDK alone: written from docs/protocol.md, with keystores as keytool makes them.
//
//   java Client.java [OPTION VALUE]... GUEST -- COMMAND [ARGUMENT]...
//
// It launches COMMAND in GUEST, polls it, and exits as it does: with its own code, or 128 and the number of the signal
// that killed it; 121 if the outcome is unknown, 122 if it was refused, 123 if the link was lost, 125 otherwise.
// It does not come back after a loss, which a manager that is in earnest must: see "Coming back" in the protocol.

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SNIHostName;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public final class Client {
    static final String USAGE = """
        usage: java Client.java [OPTION VALUE]... GUEST -- COMMAND [ARGUMENT]...
          --keystore FILE        PKCS#12 or JKS, with one key (default keystore.p12)
          --storepass-file FILE  its first line is the password of the keystore and the truststore (default pass)
          --keypass-file FILE    its first line is the key's password, if it has another
          --truststore FILE      whom to trust (default truststore.p12)
          --pinned ALIAS         GUEST is who shows exactly this certificate of the truststore, whatever names it bears
          --address HOST:PORT    connect there (default GUEST:5315)
          --name NAME            the application's (default java)
          --poll MILLISECONDS    from one poll to the next (default 1000)
          --tls VERSION          the protocol to speak (default TLSv1.3)
        """;
    static final String PROTOCOL = "cmapp/1";
    static final String SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
    static final int LINE_LIMIT = 65536;
    static final int UNKNOWN = 121, REFUSED = 122, LOST = 123, FAILED = 125;
    static final long TIMEOUT = 20_000; // milliseconds: to connect, and then for each answer

    public static void main(String[] arguments) {
        int code;
        try {
            code = new Client(arguments).run();
        } catch (End end) {
            say(end.getMessage());
            code = end.code;
        } catch (SSLException error) {
            say("TLS: " + error.getMessage());
            code = REFUSED;
        } catch (IOException error) {
            say("the link is lost: " + error.getMessage());
            code = LOST;
        } catch (GeneralSecurityException | InterruptedException | RuntimeException error) {
            say(error.toString());
            code = FAILED;
        }
        System.exit(code);
    }

    final Map<String, String> options = new LinkedHashMap<>();
    final List<String> command;
    final String guest;
    final BlockingQueue<Object> heard = new LinkedBlockingQueue<>(); // messages, and at last why there are no more
    SSLSocket link;
    long lastId = 0;

    Client(String[] arguments) throws End {
        int at = 0;
        for (; at + 1 < arguments.length && arguments[at].startsWith("--"); at += 2) {
            options.put(arguments[at], arguments[at + 1]);
        }
        if (at + 2 >= arguments.length || !arguments[at + 1].equals("--")) {
            throw new End(FAILED, USAGE);
        }
        guest = arguments[at];
        command = Arrays.asList(arguments).subList(at + 2, arguments.length);
    }

    int run() throws End, IOException, GeneralSecurityException, InterruptedException {
        link = connect();
        Thread reader = new Thread(this::read);
        reader.setDaemon(true);
        reader.start();
        long hello = ask("hello", Map.of("versions", List.of(1), "software", "java-client/1", "silence", 60));
        Map<?, ?> welcome = (Map<?, ?>) answer(hello, "welcome");
        say("welcomed by guest " + welcome.get("guest") + ", " + welcome.get("software"));
        String runId = UUID.randomUUID().toString();
        long launch = ask("launch", Map.of("name", option("--name", "java"), "run_id", runId, "argv", command));
        Map<?, ?> launched = (Map<?, ?>) answer(launch, "launched");
        say("launched as pid " + launched.get("pid"));
        Map<?, ?> outcome = (Map<?, ?>) watch().get("outcome");
        say("ended: " + outcome);
        // Here a manager in earnest writes the outcome where it is not lost.
        try {
            answer(ask("acknowledge", Map.of("run_id", runId)), "done");
            say("acknowledged");
            send(Map.of("type", "bye"));
            link.close();
        } catch (End | IOException error) { // the outcome is known all the same, and the server keeps the receipt
            say("not acknowledged: " + error.getMessage());
        }
        return codeOf(outcome);
    }

    /** Polls until the server says how the run ended, and returns the receipt. */
    Map<?, ?> watch() throws End, IOException, InterruptedException {
        long pause = Long.parseLong(option("--poll", "1000"));
        Long poll = null; // the one that waits for its report
        long deadline = 0;
        while (true) {
            Map<?, ?> message = next(poll == null ? pause : deadline - now());
            if (message == null && poll != null) {
                throw new End(LOST, "a poll was not answered");
            } else if (message == null) {
                poll = ask("poll", Map.of());
                deadline = now() + TIMEOUT;
            } else if ("exited".equals(message.get("type"))) {
                return (Map<?, ?>) message.get("receipt");
            } else if ("report".equals(message.get("type"))) {
                Map<?, ?> run = (Map<?, ?>) message.get("run");
                say("it is " + run.get("state") + ", up for " + run.get("uptime") + " s");
                poll = null;
            } // whatever else is pushed is nothing to us
        }
    }

    static int codeOf(Map<?, ?> outcome) {
        return switch ((String) outcome.get("type")) {
            case "exited" -> ((Number) outcome.get("code")).intValue();
            case "signaled" -> 128 + ((Number) outcome.get("signal")).intValue();
            default -> UNKNOWN;
        };
    }

    // ---- TLS ---------------------------------------------------------------------------------------------------

    SSLSocket connect() throws End, IOException, GeneralSecurityException {
        char[] password = firstLine(option("--storepass-file", "pass"));
        String keyFile = options.get("--keypass-file");
        KeyStore keys = opened(option("--keystore", "keystore.p12"), password);
        KeyStore trusted = opened(option("--truststore", "truststore.p12"), password);
        KeyManagerFactory own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        own.init(keys, keyFile == null ? password : firstLine(keyFile));
        TrustManagerFactory peers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        peers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(own.getKeyManagers(), peers.getTrustManagers(), null);

        String address = option("--address", guest + ":5315");
        int colon = address.lastIndexOf(':');
        String host = address.substring(0, colon).replaceAll("[\\[\\]]", "");
        Socket plain = new Socket();
        plain.setTcpNoDelay(true);
        plain.setSoTimeout((int) TIMEOUT);
        plain.connect(new InetSocketAddress(host, Integer.parseInt(address.substring(colon + 1))), (int) TIMEOUT);
        // The name that is checked is the guest's, wherever it is connected to.
        SSLSocket tls = (SSLSocket) context.getSocketFactory().createSocket(plain, guest, plain.getPort(), true);
        SSLParameters how = tls.getSSLParameters();
        how.setProtocols(new String[] {option("--tls", "TLSv1.3")});
        how.setApplicationProtocols(new String[] {PROTOCOL});
        if (!options.containsKey("--pinned")) {
            how.setEndpointIdentificationAlgorithm("HTTPS"); // without it, JSSE compares no name
        }
        if (guest.matches(".*[A-Za-z].*") && !guest.contains(":")) {
            how.setServerNames(List.of(new SNIHostName(guest)));
        }
        tls.setSSLParameters(how);
        tls.startHandshake();
        tls.setSoTimeout(0); // from here on, who waits looks at the clock
        if (!PROTOCOL.equals(tls.getApplicationProtocol())) { // a handshake without agreement succeeds all the same
            throw new End(REFUSED, "the peer does not speak " + PROTOCOL);
        }
        check((X509Certificate) tls.getSession().getPeerCertificates()[0], trusted);
        return tls;
    }

    /** Opens a keystore as what it is, PKCS#12 or JKS. */
    static KeyStore opened(String file, char[] password) throws End, GeneralSecurityException {
        try {
            return KeyStore.getInstance(new File(file), password);
        } catch (IOException error) {
            throw new End(FAILED, "cannot open " + file + ": " + error.getMessage());
        }
    }

    /** Checks what JSSE does not: the dates of a certificate that is trusted itself, the role, and who is pinned. */
    void check(X509Certificate peer, KeyStore trusted) throws End, GeneralSecurityException {
        peer.checkValidity();
        String alias = options.get("--pinned");
        if (alias != null) {
            Certificate pinned = trusted.getCertificate(alias);
            if (!peer.equals(pinned)) {
                throw new End(REFUSED, "the peer does not show the certificate " + alias);
            }
            return;
        }
        List<String> roles = new ArrayList<>();
        Collection<List<?>> names = peer.getSubjectAlternativeNames();
        for (List<?> name : names == null ? List.<List<?>>of() : names) {
            if (name.get(0).equals(6) && ((String) name.get(1)).toLowerCase().startsWith("cmapp:")) { // 6 is a URI
                roles.add((String) name.get(1));
            }
        }
        List<String> purposes = peer.getExtendedKeyUsage();
        if (roles.size() != 1 || !roles.get(0).startsWith("cmapp://guest/")) {
            throw new End(REFUSED, "the peer is no guest: its role URIs are " + roles);
        } else if (purposes == null || !purposes.contains(SERVER_AUTH)) {
            throw new End(REFUSED, "the peer's certificate may not serve");
        }
    }

    // ---- lines -------------------------------------------------------------------------------------------------

    long ask(String type, Map<String, ?> fields) {
        Map<String, Object> message = new LinkedHashMap<>();
        message.put("type", type);
        message.put("id", ++lastId);
        message.putAll(fields);
        send(message);
        return lastId;
    }

    void send(Map<String, ?> message) {
        byte[] line = (Json.write(message) + "\n").getBytes(StandardCharsets.UTF_8);
        try {
            link.getOutputStream().write(line); // in one piece
            link.getOutputStream().flush();
        } catch (IOException error) {
            // Why the link has ended, such as an alert, is learned by reading; and what came before still counts.
            say("cannot send: " + error.getMessage());
        }
    }

    /** Returns the message of this type that answers the request; what is pushed before it is thrown away. */
    Object answer(long id, String type) throws End, IOException, InterruptedException {
        long deadline = now() + TIMEOUT;
        while (true) {
            Map<?, ?> message = next(deadline - now());
            if (message == null) {
                throw new End(LOST, "no " + type + " came");
            }
            boolean ours = message.get("id") instanceof Number there && there.longValue() == id;
            if (ours && "refused".equals(message.get("type"))) {
                throw new End(REFUSED, "refused: " + message.get("text") + " (" + message.get("code") + ")");
            } else if (ours && type.equals(message.get("type"))) {
                return message;
            }
        }
    }

    /** Returns the next message, or null if none came in that many milliseconds. */
    Map<?, ?> next(long patience) throws End, IOException, InterruptedException {
        Object found = heard.poll(Math.max(0, patience), TimeUnit.MILLISECONDS);
        if (found instanceof IOException error) {
            throw error; // after a refused handshake in TLS 1.3, this is where it is learned
        } else if (found instanceof RuntimeException error) {
            throw new End(LOST, "the server sent a bad line: " + error.getMessage());
        }
        Map<?, ?> message = (Map<?, ?>) found;
        if (message != null && "bye".equals(message.get("type"))) {
            throw new End(LOST, "the server hung up: " + message.get("reason"));
        }
        return message;
    }

    void read() {
        try {
            InputStream in = new java.io.BufferedInputStream(link.getInputStream());
            ByteArrayOutputStream line = new ByteArrayOutputStream();
            for (int next; (next = in.read()) >= 0; ) {
                if (next != '\n') {
                    line.write(next);
                    if (line.size() >= LINE_LIMIT) {
                        throw new IOException("a line of more than " + LINE_LIMIT + " bytes");
                    }
                    continue;
                }
                heard.add((Map<?, ?>) Json.read(line.toString(StandardCharsets.UTF_8)));
                line.reset();
            }
            heard.add(new IOException("the server closed the connection"));
        } catch (IOException | RuntimeException error) {
            heard.add(error);
        }
    }

    String option(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    static char[] firstLine(String file) throws IOException {
        return Files.readAllLines(Path.of(file)).get(0).toCharArray();
    }

    static long now() {
        return System.nanoTime() / 1_000_000;
    }

    static void say(String sentence) {
        System.err.println("client: " + sentence);
    }

    static final class End extends Exception {
        private static final long serialVersionUID = 1;
        final int code;

        End(int code, String sentence) {
            super(sentence);
            this.code = code;
        }
    }

    /** Just enough of JSON: objects are maps, arrays are lists, numbers are Double or Long. */
    static final class Json {
        private final String text;
        private int at = 0;

        private Json(String text) {
            this.text = text;
        }

        static Object read(String text) {
            Json json = new Json(text);
            Object value = json.value();
            if (json.peek() != 0) {
                throw new IllegalArgumentException("more than one value");
            }
            return value;
        }

        static String write(Object value) {
            if (value instanceof Map<?, ?> map) {
                List<String> parts = new ArrayList<>();
                map.forEach((key, each) -> parts.add(write(key) + ":" + write(each)));
                return "{" + String.join(",", parts) + "}";
            } else if (value instanceof List<?> list) {
                return "[" + String.join(",", list.stream().map(Json::write).toList()) + "]";
            } else if (value instanceof String string) {
                StringBuilder quoted = new StringBuilder("\"");
                string.chars().forEach(c -> {
                    boolean plain = c >= ' ' && c != '"' && c != '\\' && c < 127;
                    quoted.append(plain ? String.valueOf((char) c) : String.format("\\u%04x", c));
                });
                return quoted.append('"').toString();
            }
            return String.valueOf(value);
        }

        private Object value() {
            return switch (peek()) {
                case '{' -> object();
                case '[' -> array();
                case '"' -> string();
                default -> word();
            };
        }

        private Map<String, Object> object() {
            Map<String, Object> map = new LinkedHashMap<>();
            take('{');
            while (peek() != '}') {
                String key = string();
                take(':');
                if (map.containsKey(key)) {
                    throw new IllegalArgumentException("a key stands twice");
                }
                map.put(key, value());
                if (peek() != '}') {
                    take(',');
                }
            }
            take('}');
            return map;
        }

        private List<Object> array() {
            List<Object> list = new ArrayList<>();
            take('[');
            while (peek() != ']') {
                list.add(value());
                if (peek() != ']') {
                    take(',');
                }
            }
            take(']');
            return list;
        }

        private String string() {
            take('"');
            StringBuilder found = new StringBuilder();
            for (char c; (c = text.charAt(at++)) != '"'; ) {
                found.append(c == '\\' ? escaped() : c);
            }
            return found.toString();
        }

        private char escaped() {
            char c = text.charAt(at++);
            if (c == 'u') {
                at += 4;
                return (char) Integer.parseInt(text.substring(at - 4, at), 16);
            }
            int known = "bfnrt".indexOf(c);
            return known < 0 ? c : "\b\f\n\r\t".charAt(known);
        }

        private Object word() {
            int start = at;
            while (at < text.length() && ",]} \t\r".indexOf(text.charAt(at)) < 0) {
                at++;
            }
            String word = text.substring(start, at);
            return switch (word) {
                case "true" -> true;
                case "false" -> false;
                case "null" -> null;
                default -> {
                    if (word.matches("-?[0-9]+")) {
                        yield Long.valueOf(word);
                    }
                    yield Double.valueOf(word);
                }
            };
        }

        /** Skips white space, and returns what comes next, 0 at the end. */
        private char peek() {
            while (at < text.length() && " \t\r".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
            return at < text.length() ? text.charAt(at) : 0;
        }

        private void take(char wanted) {
            if (peek() != wanted) {
                throw new IllegalArgumentException("'" + wanted + "' is missing in " + text);
            }
            at++;
        }
    }
}
