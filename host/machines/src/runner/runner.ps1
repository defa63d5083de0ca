# Windlass runner: the far side of a run, for Windows (OpenSSH with PowerShell 5.1 or 7). The twin of runner.sh: the same
# files, states, verbs and answers; read there what they mean.
#
# BETA: no release was tried on a Windows machine yet. Files are not put or fetched there.
#
# What differs, because Windows does:
#   The host sends this text as one line of base64 and then requests, a line each.
#   A supervisor is a PowerShell of its own, started by WMI: outside sshd's job object, which dies with the session.
#   It is known by its pid, the time it was born and the time of the last boot. It signs in itself.
#   Output passes through it, so it holds the caps; nobody else has to.
#   A cancel ends the job object that holds the command and all its descendants.
# The host sets $_w_n (nonce), $_w_k (connection) and $_w_home before this text.

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$_w_out = [Console]::OpenStandardOutput()
$_w_utf8 = New-Object System.Text.UTF8Encoding $false
$_w_windows = [Environment]::OSVersion.Platform -eq 'Win32NT'
if (-not $_w_home) { $_w_home = Join-Path ([Environment]::GetFolderPath('UserProfile')) '.windlass' }
$_w_runs = Join-Path $_w_home 'runs'
$_w_done = Join-Path $_w_home 'done'
$_w_fences = Join-Path $_w_home 'fences'
$_w_shell = (Get-Process -Id $PID).Path

function _w_say([string]$line) {
  $bytes = $_w_utf8.GetBytes("$_w_n $line`n")
  $_w_out.Write($bytes, 0, $bytes.Length)
  $_w_out.Flush()
}

function _w_boot_id {
  if ($_w_windows) { return [string](Get-CimInstance Win32_OperatingSystem).LastBootUpTime.ToUniversalTime().Ticks }
  return ([IO.File]::ReadAllText('/proc/sys/kernel/random/boot_id')).Trim()
}

# When process $id was born; nothing when there is none.
function _w_birth([string]$id) {
  try { return [string](Get-Process -Id ([int]$id)).StartTime.ToUniversalTime().Ticks } catch { return '' }
}

# A file as it is now, also while others write it; nothing when there is none.
function _w_read([string]$path) {
  try { $file = [IO.File]::Open($path, 'Open', 'Read', 'ReadWrite, Delete') } catch { return '' }
  try { return (New-Object IO.StreamReader $file).ReadToEnd() } finally { $file.Dispose() }
}

# Creates a file with $text, or fails because it exists: THE decision.
function _w_claim([string]$path, [string]$text) {
  try { $file = [IO.File]::Open($path, 'CreateNew', 'Write', 'ReadWrite, Delete') } catch { return $false }
  try {
    $bytes = $_w_utf8.GetBytes($text)
    $file.Write($bytes, 0, $bytes.Length)
    $file.Flush()
    return $true
  } catch {
    $file.Dispose()
    Remove-Item -Force -LiteralPath $path
    throw
  } finally { $file.Dispose() }
}

# What is recorded of run $t.
function _w_records([string]$t) {
  $found = @{ sup = $null; lead = ''; state = '' }
  foreach ($line in (_w_read (Join-Path $_w_runs "$t+go")).Split("`n")) {
    $word = $line.Split(' ')
    if ($word[-1] -ne '.') { continue }
    switch ($word[0]) {
      'F' { $found.state = 'FENCED' }
      'S' { $found.sup = $word[1..3] }
      'L' { $found.lead = $word[1] }
      'R' { $found.state = "DONE $($word[1]) $($word[2])" }
    }
  }
  return $found
}

# The state of run $t. Reads only.
function _w_state([string]$t) {
  $known = _w_records $t
  if ($known.state) { return $known.state }
  if (Test-Path -LiteralPath (Join-Path $_w_done "$t+go")) { return 'GONE' }
  if (-not (Test-Path -LiteralPath (Join-Path $_w_runs "$t+go"))) {
    if ([IO.Directory]::GetFiles($_w_runs, "$t+script.*").Length -gt 0) { return 'PREPARED' }
    return 'ABSENT'
  }
  if (-not $known.sup) { return 'STARTING' }
  if ($known.sup[2] -ne $_w_boot) { return 'LOST reboot' }
  if ((_w_birth $known.sup[0]) -eq $known.sup[1]) {
    $age = [DateTime]::UtcNow.Ticks - [long]$known.sup[1]
    return "RUNNING $([Math]::Max(0, [Math]::Floor($age / 10000000)))"
  }
  # It may have finished, or been confirmed by another host, between the two looks.
  $known = _w_records $t
  if ($known.state) { return $known.state }
  if (Test-Path -LiteralPath (Join-Path $_w_done "$t+go")) { return 'GONE' }
  return 'LOST died'
}

# The highest fence seen when $fence must not start; nothing when it may.
function _w_stale([string]$fence) {
  if (-not $fence) { return '' }
  $own = $fence.TrimStart('!')
  $mine = Join-Path $_w_fences $own
  if ($fence -ne $own -and -not (Test-Path -LiteralPath $mine)) { [IO.File]::WriteAllText($mine, '') }
  $resource = $own.Substring(0, $own.LastIndexOf('+') + 1)
  $highest = $own
  foreach ($path in [IO.Directory]::GetFiles($_w_fences, "$resource*")) {
    $name = [IO.Path]::GetFileName($path)
    if ([string]::CompareOrdinal($name, $highest) -gt 0) { $highest = $name }
    elseif ([string]::CompareOrdinal($name, $own) -lt 0 -and $fence -ne $own) { Remove-Item -Force -LiteralPath $path }
  }
  if ($highest -eq $own) { return '' }
  return $highest.Substring($highest.LastIndexOf('+') + 1)
}

# start Q T SPEC: SPEC is base64 of JSON: program, call, ext, script, args, env, cwd, stdin, cap, fence.
function _w_start($q, [string]$t, [string]$encoded) {
  $f = Join-Path $_w_runs $t
  if ((Test-Path -LiteralPath "$f+go") -or (Test-Path -LiteralPath (Join-Path $_w_done "$t+go"))) {
    _w_say "= $q $(_w_state $t)"
    return
  }
  $spec = $_w_utf8.GetString([Convert]::FromBase64String($encoded)) | ConvertFrom-Json
  if ($null -ne $spec.script) {
    $names = if ($spec.program -eq 'pwsh' -and $_w_windows) { 'pwsh', 'powershell' } else { $spec.program }
    $tool = Get-Command -CommandType Application -ErrorAction SilentlyContinue $names | Select-Object -First 1
    if (-not $tool) { _w_say "= $q E tool $($spec.program)"; return }
    $spec.program = $tool.Source
  }
  $seen = _w_stale $spec.fence
  if ($seen) { _w_say "= $q E stale $seen"; return }
  try {
    if ($null -ne $spec.script) {
      $script = "$f+script.$_w_k$($spec.ext)"
      # With a mark of order: without, PowerShell 5 takes it for the system's code page.
      $marked = New-Object System.Text.UTF8Encoding ($spec.ext -eq '.ps1')
      [IO.File]::WriteAllText($script, $spec.script, $marked)
      $spec.args = @($spec.call) + @($script) + @($spec.args) | Where-Object { $null -ne $_ }
      $spec.script = $null
    }
    [IO.File]::WriteAllText("$f+spec.$_w_k", ($spec | ConvertTo-Json -Compress -Depth 5), $_w_utf8)
    $ours = _w_claim "$f+go" "G $($spec.cap) .`n"
  } catch { _w_say "= $q E full"; return }
  if (-not $ours) { _w_say "= $q $(_w_state $t)"; return }
  if (Test-Path -LiteralPath (Join-Path $_w_done "$t+go")) {
    # All of it happened since the first look.
    Remove-Item -Force -LiteralPath "$f+go"
    _w_say "= $q GONE"
    return
  }
  $words = @('-NoLogo', '-NoProfile', '-NonInteractive', '-ExecutionPolicy', 'Bypass', '-File',
    (Join-Path $_w_home 'supervise.ps1'), $_w_runs, $t, $_w_k, $_w_boot)
  $line = (@($_w_shell) + $words | ForEach-Object { '"' + $_ + '"' }) -join ' '
  $id = 0
  if ($_w_windows) {
    $made = Invoke-CimMethod -ClassName Win32_Process -MethodName Create -Arguments @{ CommandLine = $line }
    if ($made.ReturnValue -eq 0) { $id = $made.ProcessId }
  } else {
    $id = (Start-Process -PassThru -FilePath $_w_shell -ArgumentList ($words | ForEach-Object { '"' + $_ + '"' })).Id
  }
  if ($id -eq 0) {
    # Nothing runs, and nobody else starts it while the claim is ours.
    Remove-Item -Force -LiteralPath "$f+go"
    _w_say "= $q E home"
    return
  }
  _w_say "= $q STARTED $id"
  # Ends are not told unasked here: the host looks.
}

# status Q T
function _w_status($q, [string]$t) { _w_say "= $q $(_w_state $t)" }

# poll Q T OUT ERR COUNT
function _w_poll($q, [string]$t, [string]$out, [string]$err, [int]$count) {
  $state = _w_state $t
  _w_slice (Join-Path $_w_runs "$t+out") $out $count
  _w_say "| $q"
  _w_slice (Join-Path $_w_runs "$t+err") $err $count
  _w_say "= $q $state"
}
function _w_slice([string]$path, [string]$block, [int]$count) {
  if ($block.StartsWith('-')) { return }
  try { $file = [IO.File]::Open($path, 'Open', 'Read', 'ReadWrite, Delete') } catch { return }
  try {
    $null = $file.Seek([long]$block * 4096, 'Begin')
    $left = $count * 4096
    $bytes = New-Object byte[] 65536
    while ($left -gt 0 -and ($n = $file.Read($bytes, 0, [Math]::Min($left, $bytes.Length))) -gt 0) {
      $_w_out.Write($bytes, 0, $n)
      $left -= $n
    }
  } finally { $file.Dispose() }
}

# trim Q: the supervisors hold their caps themselves.
function _w_trim_now($q) { _w_say "= $q OK" }

# cancel Q T GRACE
function _w_cancel($q, [string]$t, [int]$grace) {
  $f = Join-Path $_w_runs $t
  if (-not (Test-Path -LiteralPath (Join-Path $_w_done "$t+go"))) {
    if (_w_claim "$f+go" "F .`n") { _w_say "= $q FENCED"; return }
  }
  $state = _w_state $t
  if ($state -notmatch '^(RUNNING|STARTING|LOST died)') { _w_say "= $q $state"; return }
  [IO.File]::WriteAllText("$f+cancel", '')
  $lead = ''
  for ($look = 0; $look -lt 100 -and -not $lead; $look++) {
    $lead = (_w_records $t).lead
    if (-not $lead) { Start-Sleep -Milliseconds 100 }
  }
  if ($lead -and (_w_state $t) -match '^RUNNING') {
    # Asks politely; a console program seldom listens.
    if ($_w_windows) { & taskkill.exe /T /PID $lead *> $null } else { & /bin/kill -TERM $lead *> $null }
    for ($look = 0; $look -lt $grace * 10 -and (_w_state $t) -match '^RUNNING'; $look++) { Start-Sleep -Milliseconds 100 }
  }
  if ($lead) {
    if ($_w_windows) {
      if (-not (_w_end_job $t)) { & taskkill.exe /F /T /PID $lead *> $null }
    } elseif ((_w_state $t) -match '^RUNNING') { & /bin/kill -KILL $lead *> $null }
  }
  for ($look = 0; $look -lt 50 -and (_w_state $t) -match '^(RUNNING|STARTING)'; $look++) { Start-Sleep -Milliseconds 100 }
  _w_say "= $q $(_w_state $t)"
}
function _w_end_job([string]$t) {
  try {
    Add-Type -TypeDefinition ([IO.File]::ReadAllText((Join-Path $_w_home 'supervise.cs')))
    return [WindlassRun]::End("windlass-$t")
  } catch { return $false }
}

# ack Q T:PID ...
function _w_ack($q) {
  foreach ($word in $args) {
    $t = ([string]$word).Split(':')[0]
    $go = Join-Path $_w_runs "$t+go"
    try {
      if (Test-Path -LiteralPath $go) {
        Move-Item -Force -LiteralPath $go -Destination $_w_done
        [IO.File]::WriteAllText((Join-Path $_w_done "$t+go"), '')
      }
      foreach ($path in [IO.Directory]::GetFiles($_w_runs, "$t+*")) { Remove-Item -Force -LiteralPath $path }
    } catch { _w_say "= $q E full"; return }
  }
  _w_say "= $q OK"
}

# tidy Q DAYS
function _w_tidy($q, [int]$days) {
  $old = [DateTime]::UtcNow.AddDays(-$days)
  foreach ($file in [IO.DirectoryInfo]::new($_w_done).GetFiles()) {
    if ($file.LastWriteTimeUtc -lt $old) { $file.Delete() }
  }
  foreach ($file in [IO.DirectoryInfo]::new($_w_runs).GetFiles('*+*')) {
    $t = $file.Name.Substring(0, $file.Name.LastIndexOf('+'))
    $known = Test-Path -LiteralPath (Join-Path $_w_runs "$t+go")
    if (-not $known -and $file.LastWriteTimeUtc -lt [DateTime]::UtcNow.AddDays(-1)) { $file.Delete() }
    if ($file.Name -eq "$t+go" -and $file.LastWriteTimeUtc -lt $old -and (_w_state $t) -notmatch '^RUNNING') {
      Move-Item -Force -LiteralPath $file.FullName -Destination $_w_done
      [IO.File]::WriteAllText((Join-Path $_w_done "$t+go"), '')
    }
  }
  _w_say "= $q OK"
}

# facts Q TOOL ...
function _w_facts($q) {
  $lines = @("os=$(if ($_w_windows) { 'Windows' } else { 'Linux' })", "arch=$env:PROCESSOR_ARCHITECTURE",
    "kernel=$([Environment]::OSVersion.Version)", "hostname=$([Environment]::MachineName)",
    "user=$([Environment]::UserName)", "user_home=$([Environment]::GetFolderPath('UserProfile'))", "home=$_w_home",
    "shell=$_w_shell", "boot=$_w_boot", 'detach=job object')
  try { $lines += "free_kib=$([Math]::Floor(([IO.DriveInfo]::new($_w_home)).AvailableFreeSpace / 1024))" } catch { }
  foreach ($tool in $args) {
    if (Get-Command -CommandType Application -ErrorAction SilentlyContinue $tool) { $lines += "tool=$tool" }
  }
  $bytes = $_w_utf8.GetBytes(($lines -join "`n") + "`n")
  $_w_out.Write($bytes, 0, $bytes.Length)
  _w_say "= $q OK"
}

# The job object, and pumps that stop writing at the cap but go on reading.
$_w_helper = @'
using System;
using System.Diagnostics;
using System.IO;
using System.Runtime.InteropServices;
using System.Threading.Tasks;
public static class WindlassRun {
  [DllImport("kernel32", CharSet = CharSet.Unicode)] static extern IntPtr CreateJobObjectW(IntPtr security, string name);
  [DllImport("kernel32", CharSet = CharSet.Unicode)] static extern IntPtr OpenJobObjectW(uint access, bool inherit, string name);
  [DllImport("kernel32")] static extern bool AssignProcessToJobObject(IntPtr job, IntPtr process);
  [DllImport("kernel32")] static extern bool TerminateJobObject(IntPtr job, uint code);
  public static bool Contain(string name, Process process) {
    IntPtr job = CreateJobObjectW(IntPtr.Zero, name);
    return job != IntPtr.Zero && AssignProcessToJobObject(job, process.Handle);
  }
  public static bool End(string name) {
    IntPtr job = OpenJobObjectW(0x0008, false, name);
    return job != IntPtr.Zero && TerminateJobObject(job, 137);
  }
  public static Task Pump(Stream from, string path, long cap) {
    return Task.Run(() => {
      using (FileStream to = new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete)) {
        byte[] bytes = new byte[65536];
        int n;
        while ((n = from.Read(bytes, 0, bytes.Length)) > 0) {
          int keep = (int)Math.Min(n, Math.Max(0, cap - to.Length));
          to.Write(bytes, 0, keep);
          to.Flush();
        }
      }
    });
  }
}
'@

# Runs the command and writes down how it ended. The job object is named by the ticket and holds the command from right
# after its start: a child made in that instant can be outside, and only taskkill's tree would find it.
$_w_supervisor = @'
param([string]$runs, [string]$t, [string]$k, [string]$boot)
$ErrorActionPreference = 'Stop'
$f = Join-Path $runs $t
$utf8 = New-Object System.Text.UTF8Encoding $false
$go = [IO.File]::Open("$f+go", 'Open', 'Write', 'ReadWrite, Delete')
$null = $go.Seek(0, 'End')
function record([string]$line) {
  $bytes = $utf8.GetBytes("$line .`n")
  $go.Write($bytes, 0, $bytes.Length)
  $go.Flush()
}
$me = Get-Process -Id $PID
record "S $PID $($me.StartTime.ToUniversalTime().Ticks) $boot"
$code = 126
try {
  Add-Type -TypeDefinition ([IO.File]::ReadAllText((Join-Path $PSScriptRoot 'supervise.cs')))
  $spec = [IO.File]::ReadAllText("$f+spec.$k", $utf8) | ConvertFrom-Json
  Remove-Item -Force -LiteralPath "$f+spec.$k"
  $start = New-Object Diagnostics.ProcessStartInfo
  $start.FileName = $spec.program
  $quoted = foreach ($word in @($spec.args)) {
    '"' + ([string]$word -replace '(\\*)"', '$1$1\"' -replace '(\\+)$', '$1$1') + '"'
  }
  $start.Arguments = $quoted -join ' '
  $start.UseShellExecute = $false
  $start.CreateNoWindow = $true
  $start.RedirectStandardInput = $true
  $start.RedirectStandardOutput = $true
  $start.RedirectStandardError = $true
  $start.WorkingDirectory = if ($spec.cwd) { $spec.cwd } else { [Environment]::GetFolderPath('UserProfile') }
  $start.EnvironmentVariables['WINDLASS_RUN'] = $f
  foreach ($one in $spec.env.PSObject.Properties) { $start.EnvironmentVariables[$one.Name] = [string]$one.Value }
  $job = [Environment]::OSVersion.Platform -eq 'Win32NT'
  $process = [Diagnostics.Process]::Start($start)
  if ($job) { $null = [WindlassRun]::Contain("windlass-$t", $process) }
  record "L $($process.Id)"
  $cap = [long]$spec.cap * 4096
  $out = [WindlassRun]::Pump($process.StandardOutput.BaseStream, "$f+out", $cap)
  $err = [WindlassRun]::Pump($process.StandardError.BaseStream, "$f+err", $cap)
  if ($spec.stdin) {
    $bytes = [Convert]::FromBase64String($spec.stdin)
    try { $process.StandardInput.BaseStream.Write($bytes, 0, $bytes.Length) } catch { }
  }
  $process.StandardInput.Close()
  $process.WaitForExit()
  $code = $process.ExitCode
  # What it left running may hold its output open for ever.
  $null = [Threading.Tasks.Task]::WaitAll(@($out, $err), 2000)
} catch {
  [IO.File]::AppendAllText("$f+err", "$($_.Exception.Message)`n", $utf8)
}
$marks = '-'
foreach ($one in @(@('out', 'o'), @('err', 'e'))) {
  if ((Test-Path -LiteralPath "$f+$($one[0])") -and (Get-Item -LiteralPath "$f+$($one[0])").Length -gt 0) { $marks += $one[1] }
}
if (Test-Path -LiteralPath "$f+cancel") { $marks += 'c' }
record "R $code $marks"
'@

try {
  foreach ($folder in $_w_runs, $_w_done, $_w_fences, (Join-Path $_w_home 'packages')) {
    $null = [IO.Directory]::CreateDirectory($folder)
  }
  foreach ($pair in @(@('supervise.ps1', $_w_supervisor), @('supervise.cs', $_w_helper))) {
    $path = Join-Path $_w_home $pair[0]
    if ((_w_read $path) -ne $pair[1]) { [IO.File]::WriteAllText($path, $pair[1], (New-Object System.Text.UTF8Encoding $true)) }
  }
  $_w_boot = _w_boot_id
  _w_say "= 0 READY $_w_home"
} catch { _w_say '= 0 E home' }

while ($null -ne ($_w_line = [Console]::In.ReadLine())) {
  try { Invoke-Expression $_w_line } catch { [Console]::Error.WriteLine($_.Exception.Message) }
}
