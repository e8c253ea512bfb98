#!/usr/bin/env groovy
// /// job
// description = "Report the largest file in a folder (Groovy)."
// run-time = 60
//
// [parameters.folder]
// type = "text"
// default = "/var/log"
// ///
//
// Finds the largest file in a folder, and reports it; with what comes with Java and Groovy alone.
import javax.xml.parsers.DocumentBuilderFactory

// Report how the job has ended; throws an IOException if that does not arrive.
void report(boolean success, String text) {
    def env = System.getenv()
    // As base64 the text arrives whatever is in it, and nothing has to be escaped for XML.
    def call = """<?xml version='1.0'?>
        <methodCall><methodName>postInformation</methodName><params>
        <param><value><int>${env.JOB_ID}</int></value></param>
        <param><value><boolean>${success ? 1 : 0}</boolean></value></param>
        <param><value><base64>${text.getBytes("UTF-8").encodeBase64()}</base64></value></param>
        </params></methodCall>"""
    def account = "${env.JOB_ACCOUNT}:${env.JOB_PASSWORD}".getBytes("UTF-8").encodeBase64().toString()

    def connection = (HttpURLConnection) new URL(env.JOB_REPORT_URL).openConnection()
    connection.connectTimeout = connection.readTimeout = 30_000
    connection.doOutput = true
    connection.setRequestProperty("Content-Type", "text/xml; charset=utf-8")
    connection.setRequestProperty("Authorization", "Basic " + account)
    connection.outputStream.withStream { it << call.getBytes("UTF-8") }
    // Reading throws an IOException if the status is not 200.
    def answer = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(connection.inputStream)

    // A fault comes with status 200, too; a 0 says that the report came too late.
    if (answer.getElementsByTagName("boolean").item(0)?.textContent != "1") {
        throw new IOException("not reported: " + answer.documentElement.textContent.trim())
    }
}

// Return the size and the name of the largest file.
String largest(File folder) {
    def file = folder.listFiles()?.findAll { it.isFile() }?.max { it.length() }
    if (file == null) {
        throw new FileNotFoundException("there is no file in $folder")
    }
    return "${file.length()} bytes: ${file.name}"
}

def success = true
def text
try {
    text = largest(new File(System.getenv("JOB_PARAM_FOLDER")))
} catch (IOException error) {
    (success, text) = [false, error.message]
}
report(success, text)
System.exit(success ? 0 : 1)
